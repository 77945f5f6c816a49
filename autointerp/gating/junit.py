"""A verdict -> JUnit XML: a test suite each checkpoint, a test case each rule."""

from collections.abc import Sequence
from xml.etree import ElementTree

from autointerp.gating.verdict import Decided, Verdict
from autointerp.gating.words import clean

__all__ = ["junit_xml"]


def junit_xml(verdict: Verdict) -> str:
    """The document; `fail` is a failure, `undecided` an error, so that no viewer takes it for a pass."""
    root = ElementTree.Element("testsuites", _counts(verdict.checks) | {"name": clean(verdict.policy.name)})
    for checkpoint in dict.fromkeys(each.check.checkpoint for each in verdict.checks):
        own = [each for each in verdict.checks if each.check.checkpoint == checkpoint]
        suite = ElementTree.SubElement(root, "testsuite", _counts(own) | {"name": clean(checkpoint)})
        for each in own:
            names = {"name": clean(each.check.rule.name), "classname": clean(checkpoint)}
            case = ElementTree.SubElement(suite, "testcase", names)
            if each.outcome == "pass":
                ElementTree.SubElement(case, "system-out").text = clean(each.check.statement)
                continue
            kind = "failure" if each.outcome == "fail" else "error"
            found = ElementTree.SubElement(case, kind, {"message": clean(each.check.statement)})
            found.set("type", each.outcome)
            found.text = clean(
                ". ".join(part for part in (each.check.rule.reason, each.check.needed) if part)
            )
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(decided: Sequence[Decided]) -> dict[str, str]:
    outcomes = [each.outcome for each in decided]
    return {
        "tests": str(len(outcomes)),
        "failures": str(outcomes.count("fail")),
        "errors": str(outcomes.count("undecided")),
    }
