/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A communicator of one's own, that keeps 64 pages in memory, until SIGTERM. communicator REGION
 *
 *	cc communicator.c -o communicator $(pkg-config --cflags --libs shmuring)
 */
#include <shmuring/host.h>
#include <signal.h>
#include <stdio.h>

#define PAGE SHMURING_DEFAULT_BLOCK_SIZE

static char pages[64][PAGE];
static struct shmuring_communicator *c;
static volatile sig_atomic_t told;

static void tell(int signal)
{
	(void)signal;
	told = 1;
	shmuring_communicator_wake(c);
}

static void serve(const struct shmuring_claim *claim)
{
	int is_read = claim->opcode == SHMURING_OP_GET_PAGE;
	int is_write = claim->opcode == SHMURING_OP_WRITE_PAGE || claim->opcode == SHMURING_OP_EXTEND;
	uint32_t i;
	int rc = 0;

	if (claim->block + claim->count > 64)
		rc = -ENOSPC;
	for (i = 0; i < claim->count && rc == 0; i++) {
		if (is_read)
			rc = shmuring_claim_deliver(c, claim->ref, i, pages[claim->block + i], PAGE);
		else if (is_write)
			rc = shmuring_claim_take_image(c, claim->ref, i, pages[claim->block + i], PAGE);
	}
	if (rc == 0)
		shmuring_claim_complete(c, claim->ref, claim->count, 0);
	else if (rc != SHMURING_ERR_WITHDRAWN) /* a cancelled request needs no answer */
		shmuring_claim_fail(c, claim->ref, -rc, i, 1);
}

int main(int argc, char **argv)
{
	struct shmuring_region_options options = { 64, 4, PAGE, 0, 0, { 0 } };
	struct shmuring_region *region;
	struct shmuring_claim claims[16];
	struct shmuring_error err;
	int n, i;

	if (argc != 2 || shmuring_region_create(argv[1], &options, &region, &err) < 0 ||
	    shmuring_communicator_take_role(region, &c, &err) < 0) {
		fprintf(stderr, "%s\n", argc == 2 ? err.text : "usage: communicator REGION");
		return 1;
	}
	signal(SIGTERM, tell);
	puts("serving");
	fflush(stdout);
	for (n = shmuring_communicator_sweep(c, claims, 16); n > 0 || (n == 0 && !told);) {
		for (i = 0; i < n; i++)
			serve(&claims[i]);
		n = shmuring_communicator_reap_or_park(c, SHMURING_STATE_COPYING, claims, 16, 1000000000);
		if (n == 0)
			n = shmuring_communicator_audit(c, claims, 16);
	}
	return n < 0 || shmuring_communicator_release_role(c) != 0 || shmuring_region_detach(region) != 0;
}
