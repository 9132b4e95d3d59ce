"""List the commands: python -m flowerdiff"""
from importlib.metadata import distribution

commands = distribution('flowerdiff').entry_points.select(group='console_scripts')
for command in sorted(commands):
    about = command.load().__doc__
    print(f'{command.name:20} {about}')
print('Each tells its options with --help.')
