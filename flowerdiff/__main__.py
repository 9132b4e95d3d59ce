"""List the commands: python -m flowerdiff"""
import sys
from importlib.metadata import distribution

commands = distribution('flowerdiff').entry_points.select(group='console_scripts')
for command in sorted(commands):
    about = command.load().__doc__
    print(f'{command.name:20} {about}')
print('Each tells its options with --help.')
if sys.argv[1:]: sys.exit(f"unknown: {' '.join(sys.argv[1:])}; use one of the commands above")
