"""HiGHS on the instance that the joint bench writes, from scratch and warm after one new limit.

    INSTANCE=/tmp/instance.json cargo bench -p market-bench --bench joint
    pip install highspy numpy && python3 highs.py /tmp/instance.json

One row per bid (units) and per market (supply), one column per option; CPU time of this process, one thread.
"""

import json
import random
import statistics
import sys
import time

import highspy
import numpy

with open(sys.argv[1]) as file:
    instance = json.load(file)
bids, supply, reserve = instance["bids"], instance["supply"], instance["reserve"]

columns = [(bid, market, worth - reserve) for bid, (_, options) in enumerate(bids) for market, worth in options]
lp = highspy.HighsLp()
lp.num_col_ = len(columns)
lp.num_row_ = len(bids) + len(supply)
lp.sense_ = highspy.ObjSense.kMaximize
lp.col_cost_ = numpy.array([gain for _, _, gain in columns], dtype=float)
lp.col_lower_ = numpy.zeros(len(columns))
lp.col_upper_ = numpy.full(len(columns), highspy.kHighsInf)
lp.row_lower_ = numpy.full(lp.num_row_, -highspy.kHighsInf)
lp.row_upper_ = numpy.array([units for units, _ in bids] + supply, dtype=float)
lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
lp.a_matrix_.start_ = numpy.arange(0, 2 * len(columns) + 1, 2, dtype=numpy.int32)
lp.a_matrix_.index_ = numpy.array([row for bid, market, _ in columns for row in (bid, len(bids) + market)], dtype=numpy.int32)
lp.a_matrix_.value_ = numpy.ones(2 * len(columns))

solver = highspy.Highs()
solver.setOptionValue("output_flag", False)
solver.setOptionValue("threads", 1)
solver.passModel(lp)
begun = time.process_time()
solver.run()
scratch = time.process_time() - begun
surplus = solver.getInfo().objective_function_value
assert abs(surplus - instance["surplus"]) < 1, (surplus, instance["surplus"])

random.seed(1)
warm = []
for _ in range(20):
    solver.changeColCost(random.randrange(len(columns)), float(random.randrange(8192) * 1000))
    begun = time.process_time()
    solver.run()
    warm.append(time.process_time() - begun)
print(f"HiGHS {solver.version()}: from scratch {scratch * 1e3:.0f} ms, warm after one new limit "
      f"median {statistics.median(warm) * 1e3:.2f} ms, most {max(warm) * 1e3:.1f} ms; same surplus")
