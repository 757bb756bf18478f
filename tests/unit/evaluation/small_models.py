"""Small models in the layouts of the large ones, so that the real loading code runs without their weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from sweep.model.torchvision_ops import declare_missing_operators
from sweep.pocket import WEIGHTS_DIR

declare_missing_operators()  # before transformers' image processors are imported
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json")


def write_clip(folder: Path) -> Path:
    """The pocket's CLIP is in transformers' own layout."""
    shutil.copytree(WEIGHTS_DIR / "clip", folder)
    return folder


def write_siglip(folder: Path) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    torch.manual_seed(0)
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(text_config={**layers, "vocab_size": 2000, "max_position_embeddings": 16,
                                       "projection_size": 32},
                          vision_config={**layers, "image_size": 32, "patch_size": 8})
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(WEIGHTS_DIR / "clip" / name, folder / name)
    return folder


def write_dino(folder: Path) -> Path:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def write_sscd(path: Path) -> Path:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 16, 16), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4),
                                torch.nn.Flatten(), torch.nn.Linear(128, 64))
    torch.jit.script(model.eval()).save(str(path))
    return path


def write_alexnet(path: Path) -> Path:
    """What torchvision's file holds of the layers that LPIPS uses."""
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    from torchvision.models import alexnet

    torch.manual_seed(0)
    torch.save({name: tensor for name, tensor in alexnet(weights=None).state_dict().items()
                if name.startswith("features.")}, path)
    return path


def write_insightface(folder: Path) -> Path:
    """A detector of red squares in SCRFD's layout (3 strides, 2 anchors each, with key points), and a recogniser in
    ArcFace's that tells what is drawn on them."""
    folder.mkdir(parents=True, exist_ok=True)
    _detector(folder / "det_small.onnx")
    _recogniser(folder / "rec_small.onnx")
    return folder


def _detector(path: Path) -> None:
    import numpy as np
    from onnx import TensorProto, checker, helper, numpy_helper, save

    nodes, outputs, constants = [], [], []

    def constant(name: str, value: object) -> str:
        constants.append(numpy_helper.from_array(np.array(value), name))
        return name

    def node(kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    red = node("Conv", ["input", constant("mix", np.array([1, -0.5, -0.5], np.float32).reshape(1, 3, 1, 1))], "red")
    shapes = {"score": 1, "box": 4, "points": 10}
    # eyes, nose and corners of the mouth around the middle, in strides
    points = [-1.2, -1, 1.2, -1, 0, 0.2, -1, 1.4, 1, 1.4]
    named: dict[str, list[str]] = {kind: [] for kind in shapes}
    for stride in (8, 16, 32):
        pooled = node("AveragePool", [red], f"pool{stride}", kernel_shape=[stride, stride], strides=[stride, stride])
        last = node("Transpose", [pooled], f"last{stride}", perm=[0, 2, 3, 1])
        steep = node("Mul", [last, constant(f"k{stride}", np.float32(40 if stride == 32 else 0))], f"steep{stride}")
        low = node("Sub", [steep, constant(f"b{stride}", np.float32(20))], f"low{stride}")
        first = node("Sigmoid", [low], f"first{stride}")
        none = node("Mul", [first, constant(f"z{stride}", np.float32(0))], f"none{stride}")
        both = node("Concat", [first, none], f"both{stride}", axis=3)
        named["score"].append(node("Reshape", [both, constant(f"s{stride}", [-1, 1])], f"score{stride}"))
        flat = node("Mul", [f"score{stride}", constant(f"zz{stride}", np.float32(0))], f"flat{stride}")
        for kind, values in (("box", [8.0] * 4), ("points", points)):
            wide = node("Concat", [flat] * shapes[kind], f"wide{kind}{stride}", axis=1)
            named[kind].append(node("Add", [wide, constant(f"c{kind}{stride}", np.array([values], np.float32))],
                                    f"{kind}{stride}"))
    for kind, width in shapes.items():
        outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in named[kind]]
    taken = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "h", "w"])
    model = helper.make_model(helper.make_graph(nodes, "detector", [taken], outputs, constants),
                              opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    save(model, str(path))


def _recogniser(path: Path) -> None:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    weights = np.random.default_rng(0).normal(size=(48, 16)).astype(np.float32)
    nodes = [helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[28, 28], strides=[28, 28]),
             helper.make_node("Flatten", ["pooled"], ["flat"]),
             helper.make_node("MatMul", ["flat", "weights"], ["embedding"])]
    graph = helper.make_graph(nodes, "recogniser",
                              [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 112, 112])],
                              [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 16])],
                              [numpy_helper.from_array(weights, "weights")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
