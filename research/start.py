"""Time loading and sampling in a process that has done nothing else: `python research/start.py MODEL DEVICE`"""
import json, sys, time
began = time.perf_counter()
from flowerdiff.models import load

IMAGES = 60

def time_sampling(m):
    "Measure the seconds until the first preview, and until all images are there."
    previews, began = [], time.perf_counter()
    def watch(step):
        # an image is there when its numbers are, which on a GPU takes until they are asked for
        step.x0.cpu()
        previews.append(time.perf_counter() - began)
    m.sample(IMAGES, callback=watch)
    return previews[0], time.perf_counter() - began

if __name__ == '__main__':
    m = load(*sys.argv[1:])
    found = dict(pictures=IMAGES, load=time.perf_counter() - began)
    for name in ('cold', 'warm'):
        found[f'{name}_preview'], found[name] = time_sampling(m)
    print(json.dumps(found | dict(nfe=m.plan().nfe)))
