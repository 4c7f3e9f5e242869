"""The floor: the training of a demo's peers as one plain PyTorch script, no chain, no content, no processes.

    python benchmarks/plain_loop.py --data-dir DIR --peers 6 --rounds 5 --rows 7000 --batch-size 64

One thread. Each round, every peer trains one epoch of logistic regression on its own rows with ``torch.optim.SGD``,
starting from the mean of all peers' models. Prints the accuracy of the final mean as JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F


def idx(path: Path) -> torch.Tensor:
    raw = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(raw, ">i4", raw[3], 4)
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(*shape).copy())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--peers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, required=True, help="training rows of one peer")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    features = idx(arguments.data_dir / "train-images-idx3-ubyte.gz").reshape(-1, 784).float() / 255
    labels = idx(arguments.data_dir / "train-labels-idx1-ubyte.gz").long()
    order = torch.randperm(len(labels))
    shards = [order[start :: arguments.peers][: arguments.rows] for start in range(arguments.peers)]
    data = [(features[shard], labels[shard]) for shard in shards]
    model = torch.nn.Linear(784, 10)
    merged = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(arguments.rounds):
        trained = []
        for x, y in data:
            model.load_state_dict(merged)
            optimizer = torch.optim.SGD(model.parameters(), lr=arguments.learning_rate)
            rows = torch.randperm(len(y))
            for start in range(0, len(y), arguments.batch_size):
                batch = rows[start : start + arguments.batch_size]
                optimizer.zero_grad()
                F.cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
            trained.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        merged = {name: torch.stack([t[name] for t in trained]).mean(0) for name in merged}
    model.load_state_dict(merged)
    test_x = idx(arguments.data_dir / "t10k-images-idx3-ubyte.gz").reshape(-1, 784).float() / 255
    test_y = idx(arguments.data_dir / "t10k-labels-idx1-ubyte.gz").long()
    with torch.no_grad():
        right = (model(test_x).argmax(1) == test_y).float().mean().item()
    print(json.dumps({"accuracy": right, "rows_per_round": sum(len(y) for _, y in data)}))


if __name__ == "__main__":
    main()
