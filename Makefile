# The few commands of this repository; CMake does the building. What each needs on a fresh Debian 12 is in make.sh.
#
#   make            the release build: build/adwp
#   make demo       a search on synthetic images, its curve, its architecture, and that against random ones
#   make test       all tests under ASan and UBSan, those of threads under TSan too
#   make lint       format, clang-tidy, cppcheck, shellcheck, and a build with the other compiler
#   make fuzz       each fuzzer for FUZZ_SECONDS
#   make bench      the measurements of docs/benchmarks.md, which take long; $PYTHON: one that has PyTorch
#   make gpu-bundle build/gpu-bundle: what a machine with a GPU needs to run tests/gpu/run, and no LLVM
#   make install    into PREFIX
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
GENERATOR := $(if $(shell command -v ninja),-G Ninja)
# ThreadSanitizer of gcc 12 cannot live with the address randomisation of newer kernels.
SAME_ADDRESSES := $(if $(shell setarch -R true 2>/dev/null && echo yes),setarch -R)
CLANG ?= $(or $(shell command -v clang-19),clang)
CLANG_TIDY ?= $(or $(shell command -v clang-tidy-19),clang-tidy)
SOURCES = $(shell find compiler dsl kernels runtime tests -name '*.c' -o -name '*.h')
SCRIPTS = make.sh .ci/run $(wildcard tests/run tests/gpu/run tests/*/*.sh examples/*.sh)

.PHONY: all test test-build demo lint lint-format lint-static lint-clang fuzz bench gpu-bundle install clean

all: build/CMakeCache.txt
	cmake --build build -j $(JOBS) --target adwp check-fixtures

build/CMakeCache.txt:
	cmake -S . -B build $(GENERATOR) -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=$(PREFIX)

build/test/CMakeCache.txt:
	cmake -S . -B build/test $(GENERATOR) -DCMAKE_BUILD_TYPE=Debug -DADWP_SANITIZE=address

build/tsan/CMakeCache.txt:
	cmake -S . -B build/tsan $(GENERATOR) -DCMAKE_BUILD_TYPE=Debug -DADWP_SANITIZE=thread

build/clang/CMakeCache.txt:
	CC=$(CLANG) cmake -S . -B build/clang $(GENERATOR) -DCMAKE_BUILD_TYPE=Debug

build/fuzz/CMakeCache.txt:
	CC=$(CLANG) cmake -S . -B build/fuzz $(GENERATOR) -DCMAKE_BUILD_TYPE=Debug -DADWP_SANITIZE=address -DADWP_FUZZ=ON

test-build: build/test/CMakeCache.txt build/tsan/CMakeCache.txt
	cmake --build build/test -j $(JOBS)
	cmake --build build/tsan -j $(JOBS)

test: test-build
	TSAN_OPTIONS=suppressions=$(CURDIR)/tests/tsan.txt $(SAME_ADDRESSES) ctest --test-dir build/tsan -L threads -j $(JOBS) --output-on-failure
	ctest --test-dir build/test -j $(JOBS) --output-on-failure

demo: all
	bash examples/demo.sh build/adwp build/demo

lint: lint-format lint-static lint-clang

lint-format:
	clang-format --dry-run -Werror $(SOURCES)
	shellcheck -x $(SCRIPTS)

# clang-tidy reads what the clang build was compiled with, so that it knows every option.
lint-static: build/clang/CMakeCache.txt
	cmake --build build/clang -j $(JOBS) --target adwp_dsl
	find compiler dsl kernels runtime -name '*.c' | xargs -P $(JOBS) -n 4 $(CLANG_TIDY) --quiet -p build/clang
	cppcheck -q -j $(JOBS) --std=c11 --error-exitcode=1 --enable=warning,performance,portability --inline-suppr \
	  --suppressions-list=tests/cppcheck.txt -D_GNU_SOURCE -I . compiler dsl kernels runtime

lint-clang: build/clang/CMakeCache.txt
	cmake --build build/clang -j $(JOBS)

fuzz: all build/fuzz/CMakeCache.txt
	cmake --build build/fuzz -j $(JOBS) --target fuzzers
	bash tests/fuzz/run.sh build/fuzz $(FUZZ_SECONDS)

bench: all
	cmake --build build -j $(JOBS) --target kernel_bench
	bash tests/bench/all.sh

build/gpu/CMakeCache.txt:
	cmake -S . -B build/gpu $(GENERATOR) -DCMAKE_BUILD_TYPE=Release -DADWP_LLVM=OFF -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON \
	  '-DCMAKE_INSTALL_RPATH=$$ORIGIN/lib'

gpu-bundle: all build/gpu/CMakeCache.txt
	cmake --build build/gpu -j $(JOBS) --target gpu-programs
	bash tests/gpu/bundle.sh build/adwp build/gpu build/gpu-bundle

install: all
	cmake --install build --prefix $(PREFIX)

clean:
	rm -rf build
