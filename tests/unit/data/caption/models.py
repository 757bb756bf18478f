"""Small models in the layout of the real ones, whose answers are known."""

from pathlib import Path

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", "on", "the", "beach", "with",
         "black", "hair"]
TAGS = [("general", 9), ("red_shirt", 0), ("green_hat", 0), ("blue_sky", 0), ("^_^", 0), ("alice_(red)", 4)]
SIDE = 32


def write_blip(folder: Path) -> Path:
    """A BLIP of a few thousand weights that says "beach" whatever it sees, as written by transformers itself."""
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import torch
    from transformers import BertTokenizerFast, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    BlipImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    # as in the published ones, the sign that begins a caption has no entry in the vocabulary
    text = {"vocab_size": len(WORDS) + 2, "hidden_size": 16, "encoder_hidden_size": 16, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 128, "projection_dim": 16,
            "bos_token_id": len(WORDS), "pad_token_id": 0, "eos_token_id": WORDS.index("[SEP]"),
            "sep_token_id": WORDS.index("[SEP]")}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": SIDE, "patch_size": 8, "projection_dim": 16}
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, projection_dim=16))
    with torch.no_grad():
        bias = model.text_decoder.cls.predictions.bias
        bias.fill_(-30.0)
        bias[WORDS.index("beach")], bias[WORDS.index("[SEP]")] = 5.0, 4.0
    model.save_pretrained(folder)
    return folder


def write_tagger(folder: Path) -> Path:
    """Tags the mean colour: red where a picture is redder than half, and so on; "^_^" always."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True)
    # of the mean of blue, green, red, in the order of the picture's channels
    slopes = np.array([[0, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 1]], dtype=np.float32) / 10
    offsets = np.array([9, -12.75, -12.75, -12.75, 1, -18], dtype=np.float32)
    nodes = [helper.make_node("ReduceMean", ["input", "sides"], ["mean"], keepdims=0),
             helper.make_node("MatMul", ["mean", "slopes"], ["scaled"]),
             helper.make_node("Add", ["scaled", "offsets"], ["logits"]),
             helper.make_node("Sigmoid", ["logits"], ["output"])]
    graph = helper.make_graph(
        nodes, "tagger", [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, len(TAGS)])],
        [numpy_helper.from_array(slopes, "slopes"), numpy_helper.from_array(offsets, "offsets"),
         numpy_helper.from_array(np.array([1, 2]), "sides")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
              folder / "model.onnx")
    rows = [f"{number},{name},{category},{1000 - number}" for number, (name, category) in enumerate(TAGS)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *rows]) + "\n")
    return folder
