"""Count the samples of tar shards: python scripts/index_shards.py 'train-{000..146}.tar' > train.json

dataset=webdataset takes such an index in place of the shards: it is read at once, and it may be copied to where the
shards are not, if the addresses in it are changed to where they are (https://..., gs://..., hf://...).
"""

import json
import sys

from diffq_exp.data.shards import index_of, shards_of

if __name__ == "__main__":
    try:
        (spec,) = sys.argv[1:]
        print(json.dumps(index_of(shards_of(spec)), indent=0))
    except ValueError as error:
        sys.exit(f"error: {error}")
