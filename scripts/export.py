#!/usr/bin/env python3
"""Exports a PI0 or PI0.5 checkpoint of lerobot or openpi as a pi0-edge bundle: ONNX graphs, token table, tokenizer, manifest.

Weights are streamed: any checkpoint exports in a few hundred megabytes of memory. Nothing is left behind when the export fails.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from exporter.bundle import export
from exporter.errors import ExportError
from exporter.forms import CUDA, TARGETS, TENSORRT
from exporter.manifest import COMPUTE, Options
from exporter.progress import MemoryWatch, run_command

EXAMPLES = """examples:
  python scripts/export.py checkpoints/last/pretrained_model bundle
  python scripts/export.py pi0_base bundle --tokenizer paligemma/tokenizer.json --prompt "fold the towel"
  python scripts/export.py pretrained_model bundle --precision fp16 --num-steps 5 --require-cameras all
  python scripts/export.py openpi_pytorch bundle --tokenizer paligemma_tokenizer.model --delta-actions 6,-1
  python scripts/export.py aloha_pytorch bundle --tokenizer paligemma_tokenizer.model --delta-actions 6,-1,6,-1 --adapt-to-pi
"""


def main(arguments: list[str] | None = None) -> int:
    chosen = vars(_parser().parse_args(arguments))
    checkpoint, bundle = Path(chosen.pop("checkpoint")), Path(chosen.pop("bundle"))
    quiet, verbose = chosen.pop("quiet"), chosen.pop("verbose")
    with MemoryWatch() as memory:
        status = run_command(lambda progress: export(checkpoint, bundle, Options(**chosen), progress), (ExportError, OSError), quiet)
    if status:
        return status
    if not quiet:
        print(f"{bundle} is complete; next: pi0-edge check {bundle}", file=sys.stderr)
    if verbose:
        print(f"anonymous memory: {memory.peak / 1e6:.0f} MB at its peak", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT_DIR", help="directory that lerobot saved the policy in, or openpi's with model.safetensors and assets")
    parser.add_argument("bundle", metavar="BUNDLE_DIR", help="directory to create")
    parser.add_argument("--precision", choices=list(COMPUTE), default="fp32",
                        help="of weights and matrix products; norms, softmax and sums stay in f32. bf16 runs on a GPU only; int8 and int4 need observations "
                             "to calibrate with (default: fp32)")
    parser.add_argument("--calibrate", type=Path, metavar="DIR",
                        help="int8, int4: an observation as pi0-edge run takes it, or a directory of such, to calibrate with (default: the golden ones)")
    parser.add_argument("--keep", metavar="LIST",
                        help="int8, int4: products to compute more exactly than those that are found to need it: names as the table of the loss has "
                             "them, such as prefix_prefill.layer.*.mlp.down, separated by commas")
    parser.add_argument("--target", choices=TARGETS,
                        help="what the graphs are written for. cpu: every provider runs them; cuda: fused kernels of ONNX Runtime's CUDA "
                             "provider, which TensorRT does not take; tensorrt: patterns that TensorRT fuses (default: cpu; bf16 is "
                             "recorded as cuda then, in the same forms)")
    parser.add_argument("--onnxruntime-version", choices=list(CUDA),
                        help="--target cuda: the oldest ONNX Runtime that is to take the graphs; for 1.31 they need no cuDNN (default: 1.23, "
                             "for bf16 and --prefix-bucket 1.31)")
    parser.add_argument("--tensorrt-version", choices=list(TENSORRT), default="10.3",
                        help="--target tensorrt: the oldest TensorRT that is to take the graphs (default: 10.3)")
    parser.add_argument("--num-steps", type=_count, metavar="N", help="default number of Euler steps (default: the checkpoint's)")
    parser.add_argument("--prompt", metavar="TEXT", help="prompt to use when an observation has none")
    parser.add_argument("--letterbox-pad", type=float, choices=[-1.0, -3.0],
                        help="value around images that do not fill the frame; -3 for policies trained with lerobot 0.4.4 or older (default: -1)")
    parser.add_argument("--pad-state-in-prompt", action=argparse.BooleanOptionalAction,
                        help="PI0.5: whether the prompt holds the state padded with zeros, as policies trained with lerobot 0.4.4 or "
                             "older expect (default: no)")
    parser.add_argument("--require-cameras", metavar="LIST",
                        help="cameras an observation must have: names separated by commas, all, or none "
                             "(default: those that all golden observations have)")
    parser.add_argument("--prefix-bucket", type=_count, metavar="N",
                        help="pad the prefix to a multiple of N rows, which are masked: few lengths, for CUDA graphs and TensorRT, whose "
                             "shapes are fixed; the results are equal (default: the exact length)")
    parser.add_argument("--no-golden", dest="golden", action="store_false", help="leave the reference's outputs out")
    parser.add_argument("--no-range-scan", dest="range_scan", action="store_false",
                        help="fp16: do not compute the golden observations to see whether anything overflows (minutes at full size)")
    parser.add_argument("--vision-heads", type=_count, metavar="N", help="attention heads of the vision encoder (default: 16)")
    parser.add_argument("--ignore-keys", metavar="LIST", help="keys of the checkpoint's JSON files that may be unknown, separated by commas")
    parser.add_argument("--tokenizer", type=Path, metavar="FILE",
                        help="tokenizer.json, or sentencepiece .model as openpi has it, to use in place of the checkpoint's (default: the "
                             "checkpoint's, or that of its name in the cache of Hugging Face or openpi)")
    _add_openpi(parser.add_argument_group("openpi", "what openpi has in its training configuration and not in its checkpoints"))
    parser.add_argument("--force", action="store_true", help="replace BUNDLE_DIR if it exists, once the new one is complete")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument("--verbose", action="store_true", help="say how much memory was used")
    return parser


def _add_openpi(group) -> None:
    group.add_argument("--norm-stats", type=Path, metavar="ASSET", help="the robot's statistics: a name below assets, a norm_stats.json, or a directory above one")
    group.add_argument("--delta-actions", metavar="MASK",
                       help="actions that are deltas to the state, as openpi's make_bool_mask takes it (6,-1: six that are, one that is "
                            "not), or none (default: none)")
    group.add_argument("--state-in-prompt", action=argparse.BooleanOptionalAction,
                       help="PI0.5: discrete_state_input of the training configuration (default: yes)")
    group.add_argument("--state-dim", type=_count, metavar="N", help="values of the robot's state (default: as many as have statistics)")
    group.add_argument("--action-dim", type=_count, metavar="N", help="values of an action (default: as many as have statistics)")
    group.add_argument("--max-tokens", type=_count, metavar="N", help="most tokens of a prompt (default: 48, PI0.5 200)")
    group.add_argument("--action-horizon", type=_count, metavar="N", help="actions of a chunk, where there is no config.json")
    group.add_argument("--rename", metavar="FROM=TO,...", help="the robot's camera names, such as observation/image=base_0_rgb")
    group.add_argument("--adapt-to-pi", action=argparse.BooleanOptionalAction,
                       help="ALOHA: whether the bundle converts its joints and grippers, as adapt_to_pi of openpi's AlohaInputs does "
                            "(default: no)")
    group.add_argument("--rotary", choices=["f32", "bf16"], help="rounding of the rotary frequencies in training (default: f32)")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
