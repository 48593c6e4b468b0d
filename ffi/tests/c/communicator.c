/*
 * Description: a communicator with pages in a file, that reaps in one thread and answers in another, until SIGTERM.
 *
 * communicator REGION FILE [hold]: with `hold` it claims, and answers nothing. Prints a line when it serves, with its
 * epoch and what it inherited, and a line when it has stopped, with how many it answered.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shmuring.h"
#include "shmuring/host.h"

#define PAGE 8192
#define BLOCKS 1024
#define BATCH 16

/* What survives the process: the number of blocks, and the blocks. */
struct file {
	uint32_t blocks;
	char pages[BLOCKS][PAGE];
};

static struct shmuring_communicator *communicator;
static volatile sig_atomic_t stopped;
static struct file *file;
static int to_worker[2];

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
	shmuring_communicator_wake(communicator);
}

static void give_up(const char *what, const struct shmuring_error *err)
{
	fprintf(stderr, "%s: %s\n", what, err->text);
	exit(1);
}

/* Copies pages one way or the other; the errno of the answer, or -1 if there is nothing to answer any more. */
static int copy(const struct shmuring_claim *claim, int is_read)
{
	uint32_t i;
	int rc = 0;

	for (i = 0; i < claim->count && rc == 0; i++) {
		char *page = file->pages[claim->block + i];

		rc = is_read ? shmuring_claim_deliver(communicator, claim->ref, i, page, PAGE)
			     : shmuring_claim_take_image(communicator, claim->ref, i, page, PAGE);
	}
	if (rc == 0 && !is_read)
		rc = shmuring_claim_suspend(communicator, claim->ref);
	return rc == SHMURING_ERR_WITHDRAWN ? -1 : -rc;
}

static int serve(const struct shmuring_claim *claim, uint64_t *value)
{
	uint32_t end = claim->block + claim->count;

	*value = claim->count;
	switch (claim->opcode) {
	case SHMURING_OP_GET_PAGE:
		return end > file->blocks ? ENXIO : copy(claim, 1);
	case SHMURING_OP_WRITE_PAGE:
		return end > file->blocks ? ENXIO : copy(claim, 0);
	case SHMURING_OP_EXTEND:
		if (end > BLOCKS)
			return ENOSPC;
		if (file->blocks < end)
			file->blocks = end;
		return copy(claim, 0);
	case SHMURING_OP_REL_SIZE:
		*value = file->blocks;
		return 0;
	default:
		return EOPNOTSUPP;
	}
}

static void *answer_all(void *answered)
{
	struct shmuring_claim claim;

	while (read(to_worker[0], &claim, sizeof(claim)) == (ssize_t)sizeof(claim)) {
		uint64_t value;
		int error = serve(&claim, &value), rc;

		if (error < 0)
			continue;
		if (error == 0)
			rc = shmuring_claim_complete(communicator, claim.ref, value, claim.lsn);
		else
			rc = shmuring_claim_fail(communicator, claim.ref, error, 0, 1);
		if (rc == 0)
			++*(long *)answered;
		else if (rc != SHMURING_ERR_WITHDRAWN)
			abort();
	}
	return NULL;
}

static void reap(int hold)
{
	static struct shmuring_claim claims[BATCH];
	int n = shmuring_communicator_sweep(communicator, claims, BATCH), i;

	while (!stopped || n > 0) {
		if (n < 0)
			abort();
		for (i = 0; i < n && !hold; i++) {
			if (write(to_worker[1], &claims[i], sizeof(claims[i])) != (ssize_t)sizeof(claims[i]))
				abort();
		}
		n = shmuring_communicator_reap_or_park(communicator, SHMURING_STATE_PROCESSING, claims, BATCH, 1000000000);
		if (n == 0)
			n = shmuring_communicator_audit(communicator, claims, BATCH);
	}
}

int main(int argc, char **argv)
{
	struct shmuring_region *region;
	struct shmuring_error err;
	pthread_t worker;
	long answered = 0;
	int fd;

	if (argc < 3 || pipe(to_worker) != 0)
		return 2;
	fd = open(argv[2], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(struct file)) != 0)
		return 2;
	file = mmap(NULL, sizeof(struct file), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (file == MAP_FAILED)
		return 2;
	if (shmuring_region_attach(argv[1], &region, &err) != 0)
		give_up(argv[1], &err);
	if (shmuring_communicator_take_role(region, &communicator, &err) != 0)
		give_up(argv[1], &err);
	signal(SIGTERM, stop);
	if (pthread_create(&worker, NULL, answer_all, &answered) != 0)
		return 2;
	printf("serving epoch %u inherited %d\n", shmuring_communicator_epoch(communicator),
	       shmuring_communicator_inherited(communicator));
	fflush(stdout);
	reap(argc > 3 && strcmp(argv[3], "hold") == 0);
	close(to_worker[1]);
	if (pthread_join(worker, NULL) != 0 || shmuring_communicator_release_role(communicator) != 0)
		return 3;
	if (shmuring_region_detach(region) != 0)
		return 4;
	printf("stopped answered %ld\n", answered);
	return 0;
}
