"""docs/metrics.md is true: its tables are the metrics that there are, and its rules ask for nothing else."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from metrics_site import MetricsSite

from jobqueue_api.exposition.families import BOUNDS
from jobqueue_core.testing.factories import execution, worker_info

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
_ROW: Final = re.compile(r"^\| `(?P<name>jobqueue_\w+)` \| (?P<type>\w+) \|(?P<labels>[^|]*)\|", re.MULTILINE)
_NAME: Final = re.compile(r"\bjobqueue_\w+")
DOCUMENTED: Final = {row["name"]: (row["type"], frozenset(re.findall(r"`(\w+)`", row["labels"]))) for row in _ROW.finditer(PAGE)}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, frozenset[str]]]:
    """Name -> type and labels of the metrics of an installation that has something of everything."""
    site = MetricsSite(tmp_path_factory.mktemp("metrics"))
    with closing(site.app):
        site.queue.enqueue("t")
        site.broker.beat(worker_info(started_at=site.clock()))
        site.storage.record_executions([execution()], record="all")
        found = {}
        for family in site.scrape().families:
            kind = "gauge" if family.name.endswith("_info") else family.type
            labels = frozenset(label for sample in family.samples for label in sample.labels if label != "le")
            found[family.name + "_total" * (kind == "counter")] = (kind, labels)
        return found


def test_each_metric_stands_in_a_table_with_its_type_and_labels(shown: dict[str, tuple[str, frozenset[str]]]) -> None:
    assert shown == DOCUMENTED


def test_the_bounds_of_the_histogram_are_named() -> None:
    (bounds,) = re.findall(r"has the bounds (.*?) seconds", PAGE)
    assert tuple(float(bound) for bound in re.findall(r"[\d.]+", bounds)) == BOUNDS


def test_the_rules_and_queries_ask_for_metrics_that_there_are() -> None:
    _, alerts = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    rules: list[dict[str, Any]] = [rule for group in alerts["groups"] for rule in group["rules"]]
    queries = re.findall(r"```promql\n(.*?)```", PAGE, re.DOTALL)
    assert len(rules) >= 5
    for text in [*(rule["expr"] for rule in rules), *queries]:
        asked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in _NAME.findall(text)}
        assert asked
        assert asked <= set(DOCUMENTED)
    assert all(rule["annotations"]["summary"] for rule in rules)
