"""The table at the end of a run, for the terminal: what each fault cost."""

from __future__ import annotations

from smoke.report import Report


def table(report: Report) -> list[str]:
    """Return its lines, with the remarks below them; none if no test let clients feel something."""
    faults = [(f"{test.name}{' †' if test.remarks else ''}", test, stream) for test, stream in report.faults]
    if not faults:
        return []
    width = max(len(name) for name, _, _ in faults)
    return [
        f"{'':{width}}  deliveries  confirms  confirmed  lost  redelivered  republished  verdict",
        *(
            f"{name:{width}}  {verdict.delivery_gap.seconds:8.2f} s {verdict.confirm_gap.seconds:7.2f} s"
            f"  {verdict.confirmed:9}  {lost:>4}  {verdict.redelivered:11}  {verdict.republished:11}"
            f"  {test.word(stream)}"
            for name, test, stream in faults
            for verdict in [stream.verdict]
            for lost in [len(verdict.lost) if stream.judged else "-"]
        ),
        *(f"† {test.name}: {'; '.join(test.remarks)}" for test in report.tests if test.remarks),
    ]
