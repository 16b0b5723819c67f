from orthoplex.merging.paper_scales import paper_scale_note


def test_merges_say_the_strength_of_the_paper():
    assert paper_scale_note({"orthogonal-adaptation", None, "orthoplex"}, 1.0) == (
        "preset orthogonal-adaptation (Po et al., arXiv 2312.02432) merges with --scale 0.6; this merge has 1"
    )
    both = paper_scale_note(["blocklora", "orthogonal-adaptation"], 0.5)
    assert both is not None and both.count("--scale") == 2


def test_nothing_is_said_where_the_strength_is_the_papers_or_no_paper_is_meant():
    assert paper_scale_note({"orthogonal-adaptation"}, 0.6) is None
    assert paper_scale_note({"blocklora", "orthoplex", None}, 1.0) is None
    assert paper_scale_note({"orthoplex", "another"}, 0.5) is None
