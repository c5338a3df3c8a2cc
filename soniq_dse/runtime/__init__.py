"""Runs a trained integer network on this CPU, whole, on the real kernels, and says how long that takes.

``pack.PackedNetwork`` is the deployed form (weights at their true bits, one file); ``planner.plan_network`` lays it out
for one batch size and a set of CPU features; ``executor.Executor`` runs the plan in one C++ call; ``check.check`` holds
every quantised tensor against the golden arithmetic.

A run may use several threads, whose number has no influence on any bit of the results. An ``Executor``, and so a
``PackedNetwork``, serves one caller at a time; callers side by side need one each, and hold no interpreter lock
meanwhile.
"""
