"""Write a table for each of three sites, so that there is something to try a federation with.

    python examples/deal.py FOLDER

The rows are the 1,797 handwritten digits of scikit-learn; each site gets a third. Your own table replaces this.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

digits = load_digits()
rows = np.column_stack([digits.data, digits.target]).astype(int)
np.random.RandomState(0).shuffle(rows)
header = ",".join([*(f"pixel_{n}" for n in range(64)), "label"])

for site, part in zip(("a", "b", "c"), np.array_split(rows, 3), strict=True):
    path = Path(sys.argv[1]) / f"hospital-{site}.csv"
    np.savetxt(path, part, "%d", delimiter=",", header=header, comments="")
    print(f"{path}: {len(part)} rows")
