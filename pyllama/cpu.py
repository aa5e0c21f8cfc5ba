"""What the machine grants this process: threads and memory."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _physical_cores() -> int | None:
    """Cores among the CPUs of the affinity mask, hyper-threads counted once; None if not told."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = _read(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"))
        cores.add(siblings or f"cpu{cpu}")
    return len(cores)


def _cgroups() -> list[Path]:
    """This process's cgroup v2 folders, from its own up to the root."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::"):
            path = _CGROUP / line[3:].lstrip("/")
            return [p for p in (path, *path.parents) if p.is_relative_to(_CGROUP)]
    return []


def cpu_quota() -> float | None:
    """CPUs that the cgroups (v2, v1) allow, or None."""
    quotas = []
    for folder in _cgroups():
        limit, _, period = _read(folder / "cpu.max").partition(" ")
        if limit.strip().isdigit() and period.strip().isdigit():
            quotas.append(int(limit) / int(period))
    v1 = _read(_CGROUP / "cpu/cpu.cfs_quota_us").strip(), _read(_CGROUP / "cpu/cpu.cfs_period_us").strip()
    if v1[0].isdigit() and v1[1].isdigit():  # "-1" is no limit
        quotas.append(int(v1[0]) / int(v1[1]))
    return min(quotas, default=None)


def thread_limits() -> dict[str, float]:
    """What bounds the threads: CPUs by reason, those that the system tells."""
    found = {"physical cores": _physical_cores(), "affinity": _affinity(), "cgroup quota": cpu_quota()}
    return {reason: float(n) for reason, n in found.items() if n is not None}


def default_threads() -> int:
    """min(physical cores, affinity mask, cgroup quota), at least 1."""
    return max(1, int(min(thread_limits().values())))


def huge_pages() -> str | None:
    """Transparent huge pages: always, madvise or never; None if not told."""
    state = _read(Path("/sys/kernel/mm/transparent_hugepage/enabled"))
    return state.partition("[")[2].partition("]")[0] or None


def huge_bytes() -> int | None:
    """Bytes of this process on transparent huge pages; None if not told."""
    for line in _read(Path("/proc/self/smaps_rollup")).splitlines():
        if line.startswith("AnonHugePages:"):
            return int(line.split()[1]) * 1024
    return None


def cache_bytes() -> int | None:
    """Bytes of the largest cache of a CPU; None if not told."""
    sizes = []
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        size = _read(index).strip()
        if size.endswith("K") and size[:-1].isdigit():
            sizes.append(int(size[:-1]) * 1024)
    return max(sizes, default=None)


def available_memory() -> int | None:
    """Bytes this process may still take: free memory, cgroup limit and RLIMIT_AS; None if not told."""
    limits = []
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    for folder in _cgroups():
        most, used = _read(folder / "memory.max").strip(), _read(folder / "memory.current").strip()
        if most.isdigit() and used.isdigit():
            limits.append(int(most) - int(used))
    try:
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = _read(Path("/proc/self/statm")).split()
        if soft != resource.RLIM_INFINITY and pages:
            limits.append(soft - int(pages[0]) * resource.getpagesize())
    except ImportError:
        pass
    return max(0, min(limits)) if limits else None
