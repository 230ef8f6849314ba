"""Work of a run over many files: what is done with each, and how that is reported."""

from __future__ import annotations

from typing import Any

from vaecodec.codec.rate_control import Target
from vaecodec.files.compression import compress_file, decompress_file, verify_file
from vaecodec.files.folders import Job


def compress_settings(wanted: float | Target, effort: int, strip: bool, only_images: bool) -> str:
    """What a manifest says of how files were compressed, beside the command and the model's id."""
    settings = str(wanted) if isinstance(wanted, Target) else f"{wanted:g}"
    return settings + f" effort {effort}" * (effort > 1) + " strip" * strip + " only-images" * only_images


def compress_job(job: Job, **options: Any) -> dict[str, Any]:
    """compress_file of a job; an output that is there already is as good as a new one, if it is the same."""
    return compress_file(
        job.path, job.folder, overwrite=job.overwrite, whole_name=job.whole_name, adopt=True, **options
    )


def decompress_job(job: Job, **options: Any) -> dict[str, Any]:
    """decompress_file of a job, likewise."""
    return decompress_file(job.path, job.folder, overwrite=job.overwrite, adopt=True, **options)


def verify_job(job: Job, **options: Any) -> dict[str, Any]:
    """verify_file of a job."""
    return verify_file(job.path, **options)


def format_report(command: str, name: str, report: dict[str, Any], verbose: bool = False) -> tuple[dict[str, Any], str]:
    """What became of one file, for --json and in words."""
    ours, theirs = report["bytes"], report.get("image_bytes", report.get("file_bytes"))
    before, after = (theirs, ours) if command == "compress" else (ours, theirs)
    what = f"{report['bpp']:.3f} bpp" if "bpp" in report else "stored"
    text = f"{name}: {before} -> {after} bytes, {what}, {report['seconds']:.2f} s"
    return {"input": name, **report}, text + (f" ({report['output']})" if verbose else "")
