"""What several tests of refused calls share."""
import pytest
from flowerdiff.core import FlowerDiffError

def check_refused(call, message):
    "Check that a call is refused in one line that says what is wrong."
    with pytest.raises(FlowerDiffError) as error: call()
    text = str(error.value)
    assert message in text and '\n' not in text
