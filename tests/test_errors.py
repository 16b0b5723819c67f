import pickle

from orthoplex.errors import MissingExtraError


def test_a_missing_extra_names_package_extra_and_command():
    error = MissingExtraError("a chart", "matplotlib", "charts")
    assert (error.what, error.package, error.extra) == ("a chart", "matplotlib", "charts")
    assert str(error) == (
        "a chart needs the package matplotlib, which is not installed; "
        "install the extra: pip install 'orthoplex[charts]'"
    )


def test_a_missing_extra_passes_between_processes():
    error = MissingExtraError("a chart", "matplotlib", "charts")
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.extra) == (str(error), "charts")
