#!/usr/bin/env python3
"""Whole models against float64: every output of an artifact at two sizes of the batch, beside torch's own error in f32.

    python3 -m venv venv && venv/bin/pip install torch==2.14.1 torchvision timm transformers onnxscript safetensors numpy
    venv/bin/python tests/sweep.py [--aotfarm PATH] [--folder FOLDER] [--threads N] [NAME ...]

Networks of torchvision, timm and transformers, small or on small images, get seeded random weights that keep activations near 1 (those
of a fresh model are often zero where it matters: norms, layer scales, classifiers). Each is exported by torch.export with a symbolic
batch, every third one by torch.onnx.export as well, then compiled (`submit --tune none`), pulled and run. An output is right when its
relative L2 error against float64 is at most twice that of torch in f32, plus 1e-7; integers must be equal.

What was judged stays in the folder (by default `aotfarm-sweep` in the user's cache), so that a sweep can be broken off; the models named
are judged again. Without names, docs/accuracy.md is written, and without the program it is written of the verdicts in the folder. What came
out wrong keeps its model, samples and exact outputs there.
"""

import argparse
import functools
import json
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "aotfarm-sweep"
BATCHES = (1, 5)
SEED = 7

#: Classifiers of torchvision, and the side of their images.
TORCHVISION = {
    "alexnet": 64, "densenet121": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64, "googlenet": 64, "inception_v3": 96,
    "mnasnet0_5": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "mobilenet_v3_large": 64, "regnet_x_400mf": 64, "regnet_y_400mf": 64,
    "resnet18": 64, "resnet50": 64, "resnext50_32x4d": 64, "wide_resnet50_2": 64, "shufflenet_v2_x0_5": 64, "shufflenet_v2_x1_0": 64,
    "squeezenet1_0": 64, "squeezenet1_1": 64, "convnext_tiny": 64, "swin_t": 64, "swin_v2_t": 64,
}
SEGMENTATION = {"fcn_resnet50": 64, "deeplabv3_mobilenet_v3_large": 64, "lraspp_mobilenet_v3_large": 64}

#: Models of timm: the side of their images, and whether it must be told to the model.
TIMM = {
    "test_vit": 0, "test_vit2": 0, "test_convnext": 0, "test_convnext2": 0, "test_efficientnet": 0, "test_efficientnet_gn": 0,
    "test_resnet": 0, "test_byobnet": 0, "test_nfnet": 0, "test_mambaout": 0, "test_coatnet": 0,
    "ghostnet_050": 64, "ghostnetv2_100": 64, "levit_128s": 224, "mobilevit_xxs": 64, "mobilevitv2_050": 64, "mobilenetv4_conv_small_050": 64,
    "edgenext_xx_small": 64, "convnextv2_atto": 64, "poolformer_s12": 64, "pvt_v2_b0": 64, "repvgg_a0": 64, "tinynet_e": 64, "lcnet_050": 64,
    "fastvit_t8": 64, "efficientvit_b0": 64, "efficientvit_m0": 224, "starnet_s050": 64, "nf_regnet_b0": 64, "ese_vovnet19b_slim_dw": 64,
    "hrnet_w18_small": 64, "dla46_c": 64, "mambaout_femto": 64, "hgnetv2_b0": 64, "rexnet_100": 64, "inception_next_atto": 64,
    "repvit_m0_9": 64, "skresnet18": 64, "resnest14d": 64, "shvit_s1": 64, "xcit_nano_12_p16_224": 64, "botnet26t_256": 256,
    "halonet26t": 64, "coat_lite_tiny": 64, "gcvit_xxtiny": 224, "resnetv2_18": 64, "res2net50_14w_8s": 64,
}  # fmt: skip

#: The sizes of the transformers; each names what it calls otherwise.
SIZES = {
    "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
IMAGE = {"image_size": 32, "patch_size": 8}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
SPEECH = {"conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16,
          "num_conv_pos_embedding_groups": 4}  # fmt: skip
ENCODER = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
           "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}  # fmt: skip
#: Class of the model, kind of its inputs, and what its configuration says beside the sizes. Text is given
#: alone, with a mask of its padding, and with a mask of its scores.
TRANSFORMERS = [
    ("BertModel", "text", {}),
    ("BertForMaskedLM", "text", {}),
    ("DistilBertModel", "text", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    ("RobertaModel", "text", {"max_position_embeddings": 66}),
    ("AlbertModel", "text", {"embedding_size": 16}),
    ("ElectraModel", "text", {"embedding_size": 16}),
    ("MobileBertModel", "text", {"normalization_type": "layer_norm", "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16}),
    ("DebertaModel", "text", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    ("DebertaV2Model", "text", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8}),
    ("MPNetModel", "text", {}),
    ("SqueezeBertModel", "text", {"embedding_size": 32}),
    ("XLMRobertaModel", "text", {"max_position_embeddings": 66}),
    ("ModernBertModel", "text", {"global_attn_every_n_layers": 2, "local_attention": 8}),
    ("FNetModel", "ids", {}),
    ("GPT2Model", "text", GPT),
    ("GPT2LMHeadModel", "text", GPT),
    ("GPTNeoModel", "text", {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8}),
    ("GPTJModel", "text", GPT | {"rotary_dim": 4}),
    ("GPTNeoXModel", "text", {}),
    ("OPTModel", "text", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    ("BloomModel", "text", {"n_layer": 2, "n_head": 4}),
    ("LlamaForCausalLM", "text", GROUPED),
    ("MistralModel", "text", GROUPED | {"sliding_window": 8}),
    ("Qwen2Model", "text", GROUPED),
    ("Qwen3Model", "text", GROUPED),
    ("GemmaModel", "text", GROUPED),
    ("Gemma2Model", "text", GROUPED | {"query_pre_attn_scalar": 8, "sliding_window": 8}),
    ("PhiModel", "text", {}),
    ("Phi3Model", "text", GROUPED),
    ("StableLmModel", "text", GROUPED),
    ("FalconModel", "text", {}),
    ("CohereModel", "text", GROUPED),
    ("OlmoModel", "text", GROUPED),
    ("Starcoder2Model", "text", GROUPED),
    ("MixtralModel", "text", GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ("MambaModel", "ids", {"state_size": 4}),
    ("T5EncoderModel", "text", T5),
    ("BartModel", "text", ENCODER),
    ("ViTModel", "image", IMAGE),
    ("DeiTModel", "image", IMAGE),
    ("BeitModel", "image", IMAGE | {"use_relative_position_bias": True}),
    ("Dinov2Model", "image", IMAGE),
    ("SwinModel", "image", {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}),
    ("ConvNextModel", "image", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}),
    ("SegformerModel", "image", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}),
    ("ResNetModel", "image", {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}),
    ("SiglipVisionModel", "image", IMAGE),
    ("CLIPVisionModel", "image", IMAGE),
    ("CLIPTextModel", "text", {}),
    ("Wav2Vec2Model", "audio", SPEECH),
    ("HubertModel", "audio", SPEECH),
    ("WavLMModel", "audio", SPEECH),
    ("PatchTSTModel", "series", {"num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 32}),
]  # fmt: skip


def randomise(model, generator):
    """Weights, statistics and constants of norms that keep activations near 1, in the order of the model's parameters."""
    import torch

    def normal(tensor, scale):
        return torch.randn(tensor.shape, generator=generator) * scale

    def near_one(tensor):
        return torch.rand(tensor.shape, generator=generator) * 0.5 + 0.75

    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and parameter[0].numel() > 1:
            parameter.data = normal(parameter, (1.6 / parameter[0].numel()) ** 0.5)
        elif name.endswith("bias"):
            parameter.data = normal(parameter, 0.1)
        else:
            parameter.data = near_one(parameter)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(normal(buffer, 0.1))
        elif name.endswith("running_var"):
            buffer.copy_(near_one(buffer))


def image_model(make, side):
    def build(generator):
        import torch

        model = make().eval()
        size = side or model.default_cfg["input_size"][-1]
        return model, lambda batch: (torch.randn(batch, 3, size, size, generator=generator),)

    return build


def torchvision_model(name, side):
    def make():
        import torchvision

        return torchvision.models.get_model(name, weights=None, **({"init_weights": False} if name in ("googlenet", "inception_v3") else {}))

    return image_model(make, side)


def segmentation_model(name, side):
    def make():
        import torchvision

        return torchvision.models.get_model(name, weights=None, weights_backbone=None)

    return image_model(make, side)


def timm_model(name, side):
    def make():
        import timm

        size = {"img_size": side} if name.startswith(("coat", "xcit", "halonet")) and side else {}
        return timm.create_model(name, pretrained=False, **size)

    return image_model(make, side)


def transformers_model(name, kind, said):
    def build(generator):
        import torch
        import transformers

        model_class = getattr(transformers, name)
        # Models of several stages say all of it by stage.
        config = model_class.config_class(**({} if "depths" in said else SIZES) | said)
        config._attn_implementation = "sdpa" if getattr(model_class, "_supports_sdpa", False) else "eager"
        # Torch's grouped products, the default, are not made in float64.
        config._experts_implementation = "batched_mm"
        model = model_class(config).eval()

        def inputs(batch):
            if kind == "image":
                return (torch.randn(batch, 3, 32, 32, generator=generator),)
            if kind == "audio":
                return (torch.randn(batch, 1200, generator=generator),)
            if kind == "series":
                return (torch.randn(batch, 32, 3, generator=generator),)
            ids = torch.randint(3, 99, (batch, 16), generator=generator)
            if kind == "padded":
                # Every second row ends in padding.
                mask = torch.ones(batch, 16, dtype=torch.int64)
                mask[::2, 12:] = 0
                return ids, mask
            if kind == "masked":
                # What is added to the scores, as the program that runs a model may make it: here no token sees a later one.
                return ids, torch.full((16, 16), torch.finfo(torch.float32).min).triu(1).expand(batch, 1, 16, 16).contiguous()
            return (ids,)

        return model, inputs

    return build


def models():
    """All models by name; how to build each with a generator of numbers: `(module, inputs of a batch)`."""
    found = {f"torchvision {name}": torchvision_model(name, side) for name, side in TORCHVISION.items()}
    found |= {f"torchvision {name}": segmentation_model(name, side) for name, side in SEGMENTATION.items()}
    found |= {f"timm {name}": timm_model(name, side) for name, side in TIMM.items()}
    for name, kind, said in TRANSFORMERS:
        found[f"transformers {name}"] = transformers_model(name, "ids" if kind == "text" else kind, said)
        if kind == "text":
            found[f"transformers {name}, padded"] = transformers_model(name, "padded", said)
            found[f"transformers {name}, masked"] = transformers_model(name, "masked", said)
    return found


def tensors_only(model):
    """The model with all tensors that it returns as its outputs."""
    import torch
    from torch.utils import _pytree as pytree

    class Outputs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *inputs):
            names = {2: ("input_ids", "attention_mask")}.get(len(inputs))
            result = self.model(**dict(zip(names, inputs))) if names else self.model(*inputs)
            result = result.to_tuple() if hasattr(result, "to_tuple") else result
            return tuple(leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor))

    return Outputs().eval()


@functools.cache
def wide_mode():
    """A mode in which f32 that code asks for by name is float64."""
    import torch
    from torch.overrides import TorchFunctionMode

    def wide(value):
        return torch.float64 if value is torch.float32 else value

    class Wide(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            function = torch.Tensor.double if function is torch.Tensor.float else function
            return function(*map(wide, args), **{key: wide(value) for key, value in (kwargs or {}).items()})

    return Wide


def exact(model, inputs):
    """What the model gives in float64; the model stays in that type."""
    import torch

    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), wide_mode()():
            return model.double()(*(x.double() if x.is_floating_point() else x for x in inputs))
    finally:
        torch.set_default_dtype(torch.float32)


def plain(tensors):
    return [tensor.detach().contiguous().clone() for tensor in tensors]


def first_line(error):
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0].strip() if lines else type(error).__name__)[:200]


def export(build, folder, onnx):
    """Writes model.pt2, perhaps model.onnx, and `case<B>.safetensors` with in.<i>, out.<i> and exact.<i>; gives why a file could not be exported."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    failed = {}
    model, inputs = build(generator)
    randomise(model, generator)
    model = tensors_only(model)
    given = {batch: inputs(batch) for batch in BATCHES}
    with torch.no_grad():
        wanted = {batch: model(*x) for batch, x in given.items()}
        batch = torch.export.Dim("batch", min=1, max=8)
        sample = inputs(2)
        try:
            program = torch.export.export(model, sample, dynamic_shapes=(tuple({0: batch} for _ in sample),))
            torch.export.save(program, folder / "model.pt2")
            if onnx:
                try:
                    torch.onnx.export(program, (), folder / "model.onnx", dynamo=True, external_data=False, verbose=False)
                except Exception as error:  # noqa: BLE001  an exporter may fail in any way
                    failed["onnx"] = first_line(error)
        except Exception as error:  # noqa: BLE001
            failed["pt2"] = first_line(error)
    for batch, x in given.items():
        case = {f"in.{i}": x for i, x in enumerate(plain(x))} | {f"out.{i}": y for i, y in enumerate(plain(wanted[batch]))}
        case |= {f"exact.{i}": y for i, y in enumerate(plain(exact(model, x)))}
        save_file(case, folder / f"case{batch}.safetensors")
    return failed


def relative_error(got, exact):
    import torch

    if not torch.isfinite(exact).all():
        raise ValueError("the exact output is not finite: mend the weights")
    norm = exact.norm().item()
    error = (got.double() - exact).norm().item()
    return (error / norm if norm else error) if error == error else float("inf")


def compare(got, names, case):
    """The worst output's errors, ours and torch's, and whether every output is right."""
    import torch

    worst, right = None, True
    for i, name in enumerate(names):
        ours, theirs, wanted = got[name], case[f"out.{i}"], case[f"exact.{i}"]
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
            raise ValueError(f"output {i} is {ours.dtype} {list(ours.shape)} instead of {theirs.dtype} {list(theirs.shape)}")
        if not theirs.is_floating_point():
            if not torch.equal(ours, theirs):
                raise ValueError(f"output {i}: integers differ")
            continue
        errors = relative_error(ours, wanted), relative_error(theirs, wanted)
        right &= errors[0] <= 2 * errors[1] + 1e-7
        if worst is None or share(errors) > share(worst):
            worst = errors
    return worst or (0.0, 0.0), right


def share(errors):
    """How much of what is allowed our error is."""
    return errors[0] / (2 * errors[1] + 1e-7)


def reason(said, model):
    """The error among what the program said: its first line, and of a list below it the heads."""
    lines = said[max(said.find("error:"), 0) :].removeprefix("error:").strip().splitlines() or ["nothing was said"]
    head = lines[0].strip().removeprefix(f"failed to import {model}: ")
    if head.endswith(":"):
        head += " " + ", ".join(line.strip().split(": ")[0] for line in lines[1:] if line.startswith("  "))
    return head[:200]


class Refused(Exception):
    """A message of `aotfarm submit`."""


def judge(aotfarm, name, model, threads):
    """Compiles a model and runs it at both sizes of the batch."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        environment = os.environ | {"AOTFARM_DATA_DIR": str(home / "farm")}

        def call(*arguments):
            command = [aotfarm, *map(str, arguments)]
            return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=900)

        submitted = call("submit", model, "--name", name, "--tune", "none", "--quiet", f"--threads={threads}")
        if submitted.returncode:
            raise (Refused if submitted.returncode == 2 else RuntimeError)(reason(submitted.stderr, model))
        pulled = call("pull", name, "--output", home)
        if pulled.returncode:
            raise RuntimeError(reason(pulled.stderr, model))
        worst, right = None, True
        for batch in BATCHES:
            path, out = model.with_name(f"case{batch}.safetensors"), home / "out.safetensors"
            case = load_file(path)
            ran = call("--json", "run", home / f"{name}.so", "--input", path, "--output", out, f"--threads={threads}")
            if ran.returncode:
                raise RuntimeError(f"batch {batch}: {reason(ran.stderr, model)}")
            names = [output["name"] for output in json.loads(ran.stdout)["outputs"]]
            if len(names) != sum(key.startswith("out.") for key in case):
                raise RuntimeError(f"{len(names)} outputs")
            errors, fine = compare(load_file(out), names, case)
            right &= fine
            worst = errors if worst is None or share(errors) > share(worst) else worst
    return {"verdict": "right" if right else "wrong", "ours": worst[0], "torch": worst[1]}


def sweep(options, name, build, onnx):
    """The verdicts of a model by format."""
    plain_name = re.sub(r"\W+", "-", name).lower()
    folder = options.folder / plain_name
    kept = folder / "verdicts.json"
    if kept.exists() and not (options.names and options.aotfarm):
        return json.loads(kept.read_text())
    if not options.aotfarm:
        return {}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    formats = ["pt2", "onnx"] if onnx else ["pt2"]
    try:
        failed = export(build, folder, onnx)
    except Exception as error:  # noqa: BLE001  a model that torch itself cannot run says nothing of us
        failed = {"pt2": first_line(error)}
    if "pt2" in failed:
        formats = ["pt2"]
    verdicts = {}
    for format in formats:
        if format in failed:
            verdicts[format] = {"verdict": "not exported", "what": failed[format]}
            continue
        try:
            verdicts[format] = judge(options.aotfarm, f"{plain_name}-{format}", folder / f"model.{format}", options.threads)
        except Refused as error:
            verdicts[format] = {"verdict": "refused", "what": str(error)}
        except Exception as error:  # noqa: BLE001  whatever went wrong is the verdict
            verdicts[format] = {"verdict": "wrong", "what": first_line(error)}
    if all(verdict["verdict"] != "wrong" for verdict in verdicts.values()):
        for path in folder.iterdir():
            path.unlink()
    kept.write_text(json.dumps(verdicts))
    return verdicts


def line(name, format, verdict):
    cells = [name, format]
    if "ours" in verdict:
        ratio = verdict["ours"] / verdict["torch"] if verdict["torch"] else 0.0
        cells += [f"{verdict['ours']:.1e}", f"{verdict['torch']:.1e}", f"{ratio:.2f}", "" if verdict["verdict"] == "right" else "wrong"]
    else:
        cells += ["", "", "", f"{verdict['verdict']}: {verdict['what']}".replace("|", "\\|")]
    return f"| {' | '.join(cells)} |"


def report(verdicts, versions):
    rows = [(name, format, verdict) for name, formats in verdicts.items() for format, verdict in formats.items()]
    count = {kind: sum(verdict["verdict"] == kind for _, _, verdict in rows) for kind in ("right", "wrong", "refused", "not exported")}
    lines = [
        "# Accuracy of whole models",
        "",
        f"Written by `tests/sweep.py`, with {versions}: networks with seeded random weights,",
        "exported with a symbolic batch, compiled without tuning and run with a batch of 1 and of 5. Errors are relative (L2), against the model in",
        "float64: ours and torch's own in f32, of the output and batch where ours is worst beside torch's. Right is at most twice torch's error, plus",
        "1e-7, for every output.",
        "",
        f"Of {len(rows) - count['not exported']} exported files {count['right']} are right, {count['wrong']} are wrong,"
        f" and {count['refused']} are refused with a reason.",
        f"{count['not exported']} more cannot be exported by torch. Not judged yet: {sum(not formats for formats in verdicts.values())} models.",
        "",
        "| model | format | error | torch's | ratio | |",
        "|---|---|---|---|---|---|",
    ]
    return count, "\n".join(lines + [line(*row) for row in rows if row[2]["verdict"] != "not exported"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only models whose name holds one of these")
    parser.add_argument("--aotfarm", help="the program that compiles and runs them; none: report what is kept")
    parser.add_argument("--folder", type=pathlib.Path, default=CACHE, help="where verdicts are kept")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.nice(10)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    import importlib.metadata

    verdicts = {}
    for name, build in models().items():
        if options.names and not any(part.lower() in name.lower() for part in options.names):
            continue
        verdicts[name] = sweep(options, name, build, onnx=zlib.crc32(name.encode()) % 3 == 0)
        for format, verdict in verdicts[name].items():
            print(line(name, format, verdict), file=sys.stderr, flush=True)
    versions = ", ".join(f"{name} {importlib.metadata.version(name).split('+')[0]}" for name in ("torch", "torchvision", "timm", "transformers"))
    count, text = report(verdicts, versions)
    print(text)
    if not options.names:
        (ROOT / "docs/accuracy.md").write_text(text)
    sys.exit(count["wrong"] > 0)


if __name__ == "__main__":
    main()
