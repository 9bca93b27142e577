"""DataJuicer's own run of some operators over some samples, for comparison: a script of its own.

Run by DataJuicer's interpreter, with nothing of ours. Reads ``{"samples": […], "operators":
[[name, parameters], …]}`` as JSON from standard input; writes a list with, by operator, a list
with, by sample, its row after the operator ran and whether the sample was kept.
"""

import json
import sys

from data_juicer.core.data import NestedDataset
from data_juicer.ops import Filter
from data_juicer.ops.load import load_ops

asked = json.load(sys.stdin)
samples = [{"id": number, **sample} for number, sample in enumerate(asked["samples"])]
answers = []
for name, parameters in asked["operators"]:
    # In this process: its own pools of processes take seconds to start, for every step.
    (operator,) = load_ops([{name: {**parameters, "auto_op_parallelism": False}}])
    if isinstance(operator, Filter):
        measured = operator.run(NestedDataset.from_list(samples), reduce=False)
        rows = list(measured)
        kept = set(measured.filter(operator.process, batch_size=operator.batch_size)["id"])
    else:
        rows = list(operator.run(NestedDataset.from_list(samples)))
        kept = {row["id"] for row in rows}
    rows.sort(key=lambda row: row["id"])
    answers.append([{"row": row, "kept": row["id"] in kept} for row in rows])
json.dump(answers, sys.stdout)
