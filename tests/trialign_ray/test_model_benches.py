"""The benches of models run where there is no GPU, and measure what they say."""

import pytest


@pytest.mark.ray
@pytest.mark.slow
def test_more_actors_do_not_pay_for_the_base_again(ray_local):
    from tests.bench import actor_memory

    (two,) = actor_memory.main(["--tiny", "--actors", "2"])
    assert two["file_rss"] > 0.3, "MiB: the base's pages were read, by each"
    # Half, but for pages that one of them alone has read; all of it, if each had its own.
    assert two["file"] < 0.75 * two["file_rss"], "and are shared by both"
    assert two["pss"] < two["rss"]


@pytest.mark.ray
@pytest.mark.slow
def test_throughput_compares_trees_with_rows_on_a_cpu(ray_local, capsys):
    from tests.bench import gpu_throughput

    tree, rows = gpu_throughput.main(["--tiny", "--groups", "2"])
    assert tree["tokens_per_s"] > 0 and rows["tokens_per_s"] > 0
    assert "| 2 | 24 | 6 | 4 | separate rows |" in capsys.readouterr().out


def test_throughput_refuses_the_large_model_without_a_gpu():
    import torch

    from tests.bench import gpu_throughput

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, so it would run")
    with pytest.raises(SystemExit, match="no GPU is visible"):
        gpu_throughput.main([])
