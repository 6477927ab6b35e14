"""What is normal for an agent and task.

Learnt from closed runs, published, looked up when a run begins. Pure.
"""
