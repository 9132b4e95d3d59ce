"""What all tests share."""
import os

# Two tests run at a time (pyproject.toml), each with processes of its own. With one thread each they do not get
# in each other's way. PyTorch reads this when it is imported, so it stands outside of any function.
if 'PYTEST_XDIST_WORKER' in os.environ: os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'agg')
