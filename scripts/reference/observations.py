"""Observations: made up from a seed, or read from a directory as `pi0-edge run` takes it."""

import dataclasses
import json
import pathlib
import zlib

import numpy as np
from PIL import Image, ImageDraw

from .dimensions import CheckpointError

PROMPTS = (
    "pick up the red cube and stack it",
    "Open the left drawer, slowly.",
    # A newline of its own, digits and letters that need bytes: what a prompt can trip over.
    "pose 2 cafés\n",
)
# PI0.5 cleans the task and writes the state after it: what is cut and replaced, and a prompt up to the limit.
PROMPTS_WITH_STATE = (
    " \tpick_up the red cube\nand stack it \n",
    "put the orange sponge on the upper shelf, then wipe the table_top slowly; " * 8,
    "pose 2 cafés",
)


@dataclasses.dataclass
class Case:
    name: str
    images: dict  # robot key -> uint8 [height, width, 3]
    state: np.ndarray  # float32
    prompt: str
    num_steps: int
    noise: np.ndarray  # float32 [action_horizon, max_action_dim]


def made_up(reference, seed, names=None):
    """The standard cases: one camera absent at 10 and at 4 steps, then every camera present."""
    cameras = reference.cameras
    if not cameras:
        raise CheckpointError("config.json has no camera among its input_features")
    robot_keys = [reference.renamed.get(key, key) for key in cameras]
    some = robot_keys[: max(1, len(cameras) - 1)]
    plan = [(some, 10), (some, 4), (robot_keys, 10 if len(cameras) > 1 else 1)]
    sizes = frame_sizes(reference.config.image_resolution[0])

    in_prompt = reference.config.type == "pi05"
    cases = []
    for (present, num_steps), prompt, case_sizes in zip(plan, PROMPTS_WITH_STATE if in_prompt else PROMPTS, sizes):
        name = f"{counted(len(present), 'camera')}_{counted(num_steps, 'step', digits=True)}"
        random = np.random.default_rng([seed, zlib.crc32(name.encode())])
        images = {key: frame(random, *case_sizes[i % len(case_sizes)]) for i, key in enumerate(present)}
        state = random.normal(size=reference.state_dim).astype(np.float32)
        if in_prompt and num_steps == 4:
            state *= 4  # beyond what the statistics cover, on both sides
        cases.append(
            Case(
                name=name,
                images=images,
                state=state,
                prompt=fitted(reference, prompt, state),
                num_steps=num_steps,
                noise=noise(reference, seed, name),
            )
        )
    if names:
        unknown = set(names) - {case.name for case in cases}
        if unknown:
            raise CheckpointError(f"no case named {sorted(unknown)}; there are {[case.name for case in cases]}")
        cases = [case for case in cases if case.name in names]
    return cases


def noise(reference, seed, name):
    """A stream of its own, so that it depends on the seed and the case's name only."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode()), 1])
    return random.standard_normal((reference.config.chunk_size, reference.config.max_action_dim), np.float32)


def counted(number, noun, digits=False):
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    word = str(number) if digits or number >= len(words) else words[number]
    return f"{word}_{noun}" if number == 1 else f"{word}_{noun}s"


def from_directory(reference, directory, seed, num_steps):
    """A user's own observation.json with its frames."""
    path = pathlib.Path(directory) / "observation.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if missing := {"images", "state", "prompt"} - described.keys():
        raise CheckpointError(f"{path}: key '{sorted(missing)[0]}' is missing")
    known = set(reference.cameras) | {reference.renamed.get(key) for key in reference.cameras}
    if unknown := described["images"].keys() - known:
        raise CheckpointError(f"{path}: '{sorted(unknown)[0]}' is no camera of this policy; it has {reference.cameras}")
    state = np.asarray(described["state"], np.float32)
    if state.shape != (reference.state_dim,) or not np.isfinite(state).all():
        raise CheckpointError(f"{path}: 'state' must be {reference.state_dim} finite numbers")
    if not reference.truncates and fitted(reference, described["prompt"], state) != described["prompt"]:
        raise CheckpointError(f"{path}: the prompt has more than {reference.max_tokens} tokens, and the tokenizer step does not cut it")
    name = pathlib.Path(directory).resolve().name
    try:
        images = {key: np.array(Image.open(path.parent / file).convert("RGB")) for key, file in described["images"].items()}
    except OSError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Case(
        name=name,
        images=images,
        state=state,
        prompt=described["prompt"],
        num_steps=num_steps or reference.config.num_inference_steps,
        noise=noise(reference, seed, name),
    )


def write(case, directory):
    directory.mkdir(parents=True, exist_ok=True)
    images = {}
    for key, pixels in case.images.items():
        images[key] = key.rpartition(".")[2] + ".png"
        # PNG whatever the frames came as: JPEG decoders differ in the last bit.
        Image.fromarray(pixels).save(directory / images[key], optimize=True)
    described = {
        "images": images,
        "state": [float(str(value)) for value in case.state],  # the shortest number that reads back to the same float32
        "prompt": case.prompt,
    }
    text = json.dumps(described, indent=1, ensure_ascii=False)
    (directory / "observation.json").write_text(text + "\n", encoding="utf-8")
    np.save(directory / "noise.npy", case.noise)


def fitted(reference, prompt, state):
    """The prompt without the last words that lerobot's tokenizer step would cut off."""
    while True:
        if reference.prompt_tokens(prompt, state) <= reference.max_tokens:
            return prompt
        shorter = prompt.strip().rpartition(" ")[0]
        if not shorter:
            raise CheckpointError(f"the prompt {prompt!r} does not fit into {reference.max_tokens} tokens")
        prompt = shorter


def frame_sizes(resolution):
    """(width, height) of the frames of each case: the ways a frame can meet the square the model sees."""
    wide, tall = truncated_size(resolution, 4 / 3), truncated_size(resolution, 9 / 16)
    return (
        ((640, 480), (96, 72), (72, 128)),
        ((resolution, resolution), wide, (100, 60)),
        (tall, (resolution // 2, resolution // 3), (resolution, resolution // 2)),
    )


def truncated_size(resolution, aspect):
    """A frame whose long side lerobot resizes to one pixel less than it aims at.

    The ratio is rounded to a float64, the side divided by it falls just short of the
    resolution, and the fraction is cut off.
    """
    for long in range(resolution + 1, 16 * resolution):
        if int(long / (long / resolution)) < resolution:
            return (long, round(long / aspect)) if aspect > 1 else (round(long * aspect), long)
    return (2 * resolution + 1, resolution) if aspect > 1 else (resolution, 2 * resolution + 1)


def frame(random, width, height):
    """A picture with what resizing can get wrong: ramps, hard edges, fine stripes, noise."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = x / width, y / height
    weights, phases = random.uniform(0.2, 1.0, (3, 2)), random.uniform(0, 2 * np.pi, 3)
    channels = [(w[0] * x + w[1] * y) / w.sum() * 0.7 + 0.15 * (1 + np.sin(4 * x + p)) for w, p in zip(weights, phases)]
    picture = Image.fromarray((np.stack(channels, -1).clip(0, 1) * 255).astype(np.uint8))

    draw = ImageDraw.Draw(picture)
    for i in range(6):
        left, top = random.integers(0, width), random.integers(0, height)
        box = (left, top, left + random.integers(2, 3 + width // 3), top + random.integers(2, 3 + height // 3))
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        (draw.rectangle if i % 2 else draw.ellipse)([int(value) for value in box], fill=colour)

    pixels = np.array(picture)
    # A corner of each: all of it noise would make the PNG as large as the raw frame.
    half = pixels[: max(1, height // 5), : max(1, width // 5)]
    half[:] = random.integers(0, 256, half.shape)
    pixels[-max(1, height // 6) :: 2, -max(1, width // 6) :] = 255
    return pixels
