# Each target calls one script or one cargo command; what it does is written down there.
#
#   make demo    build, then run a communicator and 4 backends for 5 seconds; every page is verified
#                (more: make demo ARGS='--backends 8 --seconds 20', or ARGS=--help)
#   make check   every check and test, as continuous integration runs them
#   make check-long  the same checks for hours: 10,000,000 schedules, 110,000 kills under load, an hour for each fuzz
#                target (some of them: make check-long ARGS='kill fuzz')
#   make bench   the benchmarks: operations of one thread, round trips between two processes
#   make lib     the C library: target/c/libshmuring.{a,so}
#   make install, make uninstall
#                headers, both libraries and shmuring.pc, below PREFIX=/usr/local; LIBDIR, INCLUDEDIR, DESTDIR and
#                FEATURES: see ffi/install.sh
#   make help    this text

.PHONY: help demo check check-long bench lib install uninstall

help:
	@sed -n 's/^#  \{0,1\}//p' Makefile

demo:
	cargo build --release --quiet -p shmuring-communicator --bin shmuring
	@"$${CARGO_TARGET_DIR:-target}/release/shmuring" demo $(ARGS)

check:
	ci/check.sh

check-long:
	ci/check-long.sh $(ARGS)

bench:
	cargo bench -p shmuring-benches --bench single_ops $(ARGS)
	cargo bench --bench roundtrip $(ARGS)

lib:
	ffi/install.sh build

install uninstall:
	ffi/install.sh $@
