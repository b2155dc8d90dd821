"""The dictionary that the index of a file is deflated with: words that are frequent in indexes.

It is part of the format, so that it never changes: a file that was deflated with another one cannot be read.
What deflate finds in it costs a file about three bytes; the most frequent words stand last.
"""

from __future__ import annotations

DICTIONARY = (
    b'"float64","bfloat16","int32","int16","int8","uint8","bool","minmax","packed","ans","pretrained":false,'
    b'"weights":null,"patch_size":4,"width":1.0,"depth":6,"heads":4,"dropout":0.1,"vocabulary":256,"length":128,'
    b'{"name":"vit_small","node":{"_target_":"diffq_exp.models.vit_small"},{"name":"resnet18","node":{"_target_":'
    b'"diffq_exp.models.wide_resnet28_10","diffq_exp.models.mobilenet_v2","diffq_exp.models.resnet20","timm",'
    b'"diffq_exp.models.torchvision_model","diffq_exp.models.lenet5","gpt","diffq_exp.models.gpt","root":null,'
    b'"cifar100","imagenet","fashion_mnist","synthetic","image_folder","image_size":null,"channels":1,"mean":null,'
    b'"std":null,"max_memory_mb":2048,"cache_dir":"~/.cache/diffq_exp/decoded","val_fraction":0.1,"seed":0,"crop":4,'
    b'"min_scale":0.08,"flip":true}},"download_root":"~/.cache/diffq_exp/data","val_fraction":0.1,"seed":0,"crop":2,'
    b'{"name":"text","node":{"_target_":"diffq_exp.data.text","path":"{"name":"cifar10","node":{"_target_":'
    b'"diffq_exp.data.cifar10","{"name":"mnist","node":{"_target_":"diffq_exp.data.mnist","{"name":'
    b'"language_modelling","node":{"_target_":"diffq_exp.tasks.language_modelling.LanguageModelling"}},'
    b'"quantizer":{"name":"none","node":{"_target_":null}},{"name":"lsq","node":{"_target_":"diffq_exp.quant.LSQ",'
    b'"bits":4,{"name":"qat","node":{"_target_":"diffq_exp.quant.UniformQuantizer","{"name":"ptq","node":'
    b'{"name":"diffq","node":{"_target_":"diffq_exp.quant.DiffQuantizer","group_size":8,"min_bits":2.0,'
    b'"max_bits":15.0,"init_bits":8.0,"noise":"gaussian","param":"bits","extra_bits":0,"min_size":0.01,'
    b'"exclude":[],"float16":false,"training":{"penalty":5.0,"lr":0.001}}},"input":{"shape":[3,32,32],"mean":'
    b'[0.4914,0.4822,0.4465],"std":[0.247,0.2435,0.2616],"classes":["airplane","automobile","bird","cat","deer",'
    b'"dog","frog","horse","ship","truck"]},"dtype":"int64","layers.blocks.features.stages.layer1.0.conv1.weight'
    b".bn1.bn2.downsample.0.shortcut.attention.self.attn.qkv.weight.proj.mlp.fc1.fc2.bias.embedding.position.head."
    b'classifier.ln_f.norm.weight_g","tied":{"head.weight":"token.weight"},'
    b'{"method":"diffq","tensors":[["conv1.weight",[32,1,3,3],"float32","minmax",8,null,"ans","ans",'
    b'["conv2.weight",[64,32,3,3],"float32","step",0,null,"context","packed",512,1,3],["linear.weight",[10,128],'
    b'"float32","minmax",0,null,"ans","packed",1,7],["norm1.weight",[64],"float32","minmax",0,null,"ans","packed",'
    b'{"method":"rate","tensors":[["conv1.weight",[32,1,3,3],"float32","step",0,null,"context","packed",64,1,3]],'
    b'"floats":[["norm1.weight",[32],"float32"],["norm1.bias",[32],"float16"],["norm2.weight",[64],"float16"],'
    b'["norm2.bias",[128],"float32"],["linear.bias",[10],"float16"]],"buffers":[["norm1.running_mean",[32],'
    b'"float32"],["norm1.running_var",[32],"float32"],["norm1.num_batches_tracked",[],"int64"],'
    b'["norm2.running_mean",[64],"float16",0.0],["norm2.running_var",[64],"float16",1.0],'
    b'["norm2.num_batches_tracked",[],"int64"]],"tied":{},"config":{"model":{"name":"digits_cnn","node":'
    b'{"_target_":"diffq_exp.models.digits_cnn"},"keys":{"num_classes":10,"in_channels":1,"image_size":28}},'
    b'"dataset":{"name":"digits","node":{"_target_":"diffq_exp.data.digits","val_fraction":0.1,"seed":0,"crop":1,'
    b'"flip":false}},"task":{"name":"classification","node":{"_target_":'
    b'"diffq_exp.tasks.classification.Classification","label_smoothing":0.0}},"quantizer":{"name":"rate","node":'
    b'{"_target_":"diffq_exp.quant.RateQuantizer","step":0.3,"noise":"uniform","round_from":0.3,"min_size":0.0,'
    b'"exclude":[],"float16":false,"training":{"penalty":300.0,"lr":0.01}}},"input":{"shape":[1,28,28],"mean":'
    b'[0.1307],"std":[0.3081],"classes":["0","1","2","3","4","5","6","7","8","9"]},"batch_size":64}}'
)
