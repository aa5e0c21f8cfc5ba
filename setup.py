"""One plain Extension: all of csrc and one Cython file. Each ISA file carries its own target."""

import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# Bits are promised, so the compiler may not contract or reorder what the source says.
# -g, which Python may have been built with, doubles the time and the size.
FLAGS = ["-O3", "-g0", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing"]
# -fwrapv, too, may come from there: it costs kernels up to 7 % and hides overflows from the sanitizer.
FLAGS += ["-fno-wrapv"]
if os.environ.get("PYLLAMA_SANITIZE"):
    FLAGS += ["-O1", "-g", "-fno-omit-frame-pointer", f"-fsanitize={os.environ['PYLLAMA_SANITIZE']}"]


class BuildExt(build_ext):
    """Compiles sources in parallel, with OpenMP where the compiler has it."""

    def build_extensions(self):
        openmp = ["-fopenmp"] if not os.environ.get("PYLLAMA_NO_OPENMP") and self.links("-fopenmp") else []
        serial = self.compiler.compile

        def compile_all(sources, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [o for done in pool.map(lambda s: serial([s], **options), sources) for o in done]

        self.compiler.compile = compile_all
        for extension in self.extensions:
            extension.extra_compile_args = FLAGS + openmp
            extension.extra_link_args = openmp + [f for f in FLAGS if f.startswith("-fsanitize")]
        super().build_extensions()

    def links(self, flag):
        """Whether the compiler builds a program with `flag`."""
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "probe.c")
            with open(source, "w") as file:
                file.write("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
            command = [*self.compiler.compiler_so[:1], flag, source, "-o", os.path.join(folder, "probe")]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0


core = Extension(
    "pyllama._core",
    sources=["pyllama/_core.pyx", *sorted(glob("csrc/*.c"))],
    include_dirs=["csrc"],
    depends=[*glob("csrc/*.h"), *glob("csrc/*/*")],
    libraries=["m"],
)
core.sources = [s for s in core.sources if not s.endswith("kernels_tmpl.c")]

setup(
    ext_modules=cythonize(
        [core], compiler_directives={"language_level": 3, "boundscheck": False, "wraparound": False}
    ),
    cmdclass={"build_ext": BuildExt},
)
