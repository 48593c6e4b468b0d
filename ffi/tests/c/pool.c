/*
 * Description: a registered pool that two processes map, each where it likes: pages land in it without a copy of the
 * backend's, a write is taken from it, and no byte of a cancelled buffer is written. `pool REGION`; the communicator is
 * a child.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "shmuring/host.h"

#define PAGE 8192
#define POOL 3
#define BLOCKS 16
/* Reads from here on are answered only once they are cancelled. */
#define HELD 1000

static struct shmuring_rel rel(void)
{
	return shmuring_rel_of(1663, 5, 16384, 0);
}

/* The pool in this process. */
static unsigned char *mapped(int fd)
{
	void *at = mmap(NULL, (size_t)BLOCKS * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECK(at != MAP_FAILED);
	return (unsigned char *)at;
}

static int is_all(const unsigned char *page, int byte)
{
	int i;

	for (i = 0; i < PAGE; i++)
		if (page[i] != (unsigned char)byte)
			return 0;
	return 1;
}

static void answer(struct shmuring_communicator *c, const struct shmuring_claim *claim)
{
	static unsigned char page[PAGE];
	uint32_t i;

	CHECK(claim->pool == POOL);
	if (claim->opcode == SHMURING_OP_WRITE_PAGE) {
		for (i = 0; i < claim->count; i++) {
			GIVES(shmuring_claim_take_image(c, claim->ref, i, page, PAGE), 0);
			CHECK(is_all(page, (int)(0x40 + claim->block + i)));
		}
		GIVES(shmuring_claim_complete(c, claim->ref, claim->count, 0), 0);
		return;
	}
	if (claim->block >= HELD) {
		while (shmuring_claim_is_cancelled(c, claim->ref) == 0)
			sched_yield();
		memset(page, 0xee, sizeof page);
		GIVES(shmuring_claim_deliver(c, claim->ref, 0, page, PAGE), SHMURING_ERR_WITHDRAWN);
		return;
	}
	for (i = 0; i < claim->count; i++) {
		memset(page, (int)(claim->block + i), sizeof page);
		GIVES(shmuring_claim_deliver(c, claim->ref, i, page, PAGE), 0);
	}
	GIVES(shmuring_claim_complete(c, claim->ref, claim->count, 0), 0);
}

/* Serves until a nop comes. */
static int serve(const char *path, int pool, int serving)
{
	struct shmuring_region *region = region_at(path);
	struct shmuring_communicator *c = NULL;
	struct shmuring_claim claims[8];
	unsigned char *base;
	char byte = 's';
	int i, n;

	/* At another address than the backend's. */
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
	base = mapped(pool);
	GIVES(shmuring_region_register_pool(region, POOL, base, PAGE, BLOCKS, NULL), 0);
	GIVES(shmuring_communicator_take_role(region, &c, NULL), 0);
	CHECK(write(serving, &byte, 1) == 1);
	for (;;) {
		n = shmuring_communicator_reap_or_park(c, SHMURING_STATE_PROCESSING, claims, 8, 10000000);
		if (n == 0)
			n = shmuring_communicator_audit(c, claims, 8);
		CHECK(n >= 0);
		for (i = 0; i < n; i++) {
			if (claims[i].opcode == SHMURING_OP_NOP) {
				GIVES(shmuring_claim_complete(c, claims[i].ref, 0, 0), 0);
				GIVES(shmuring_communicator_release_role(c), 0);
				GIVES(shmuring_region_detach(region), 0);
				return 0;
			}
			answer(c, &claims[i]);
		}
	}
}

static void reads_land_in_the_pool(struct shmuring_backend *b, const unsigned char *pool)
{
	static const uint32_t buffers[3] = {7, 0, 12};
	struct shmuring_wait wait = patience();
	struct shmuring_completion done;
	struct shmuring_request r;
	const void *page;
	shmuring_ref ref;
	int i;

	shmuring_prep_get_page(&r, rel(), 21, 3, 1);
	shmuring_set_buffers(&r, POOL, buffers);
	ref = shmuring_start(b, &r);
	CHECK(ref >= 0);
	GIVES(shmuring_wait(b, ref, &wait), 0);
	/* A page of a pool is the caller's to find. */
	GIVES(shmuring_page(b, ref, 0, &page), SHMURING_ERR_BAD_BUFFER);
	GIVES(shmuring_finish(b, ref, &done), 0);
	CHECK(done.error == 0 && done.value == 3);
	for (i = 0; i < 3; i++)
		CHECK(is_all(pool + (size_t)buffers[i] * PAGE, 21 + i));
	for (i = 0; i < BLOCKS; i++)
		CHECK(i == 7 || i == 0 || i == 12 || is_all(pool + (size_t)i * PAGE, 0xcc));
}

static void a_write_is_taken_from_the_pool(struct shmuring_backend *b, unsigned char *pool)
{
	static const uint32_t buffers[2] = {5, 3};
	struct shmuring_wait wait = patience();
	struct shmuring_completion done;
	struct shmuring_request r;

	memset(pool + 5 * PAGE, 0x40 + 9, PAGE);
	memset(pool + 3 * PAGE, 0x40 + 10, PAGE);
	shmuring_prep_write_page(&r, rel(), 9, 2, 1, NULL);
	shmuring_set_buffers(&r, POOL, buffers);
	GIVES(shmuring_call(b, &r, &wait, NULL, 0, &done), 0);
	CHECK(done.error == 0 && done.value == 2);
}

static void becomes(struct shmuring_backend *b, int slot, int state)
{
	uint64_t until = shmuring_deadline_ms(20000);

	while (shmuring_state(b, (uint32_t)slot) != state) {
		CHECK(shmuring_deadline_ms(0) < until);
		sched_yield();
	}
}

static void a_cancelled_buffer_is_left_alone(struct shmuring_backend *b, unsigned char *pool)
{
	static const uint32_t buffers[1] = {9};
	struct shmuring_wait wait = patience();
	struct shmuring_request r;
	shmuring_ref ref;
	int slot;

	shmuring_prep_get_page(&r, rel(), HELD, 1, 1);
	shmuring_set_buffers(&r, POOL, buffers);
	ref = shmuring_start(b, &r);
	CHECK(ref >= 0);
	slot = (int)shmuring_ref_slot(ref);
	becomes(b, slot, SHMURING_STATE_PROCESSING);
	GIVES(shmuring_cancel(b, ref, &wait), SHMURING_CANCEL_ABANDONED);
	memset(pool + 9 * PAGE, 0x77, PAGE);
	/* It comes back when the communicator has found out: nothing was written till then. */
	becomes(b, slot, SHMURING_STATE_IDLE);
	CHECK(is_all(pool + 9 * PAGE, 0x77));
}

static void what_is_wrong_is_refused(struct shmuring_backend *b)
{
	static const uint32_t outside[1] = {BLOCKS}, twice[2] = {1, 1};
	struct shmuring_request r;
	int slot = shmuring_free_slot(b);

	CHECK(slot >= 0);
	shmuring_prep_get_page(&r, rel(), 1, 1, 1);
	shmuring_set_buffers(&r, POOL, outside);
	GIVES(shmuring_fill(b, (uint32_t)slot, &r), SHMURING_ERR_BAD_BUFFER);
	shmuring_prep_get_page(&r, rel(), 1, 2, 1);
	shmuring_set_buffers(&r, POOL, twice);
	GIVES(shmuring_fill(b, (uint32_t)slot, &r), SHMURING_ERR_BAD_BUFFER);
	shmuring_set_buffers(&r, POOL + 1, twice);
	GIVES(shmuring_fill(b, (uint32_t)slot, &r), SHMURING_ERR_BAD_POOL);
	shmuring_set_buffers(&r, POOL, NULL);
	GIVES(shmuring_fill(b, (uint32_t)slot, &r), SHMURING_ERR_BAD_MEMORY);
}

int main(int argc, char **argv)
{
	struct shmuring_wait wait = patience();
	struct shmuring_completion done;
	struct shmuring_region *region;
	struct shmuring_request nop;
	struct shmuring_backend *b;
	int pool, status = -1, serving[2];
	unsigned char *base;
	char byte;
	pid_t pid;

	if (argc != 2)
		return 2;
	pool = memfd_create("pool", MFD_CLOEXEC);
	CHECK(pool >= 0 && ftruncate(pool, (off_t)BLOCKS * PAGE) == 0 && pipe(serving) == 0);
	/* Before there is any handle: neither process has what the other's locks stand for. */
	pid = fork();
	if (pid == 0)
		_exit(serve(argv[1], pool, serving[1]));
	CHECK(pid > 0 && close(serving[1]) == 0 && read(serving[0], &byte, 1) == 1);

	region = region_at(argv[1]);
	base = mapped(pool);
	memset(base, 0xcc, (size_t)BLOCKS * PAGE);
	/* Not as the other process said. */
	GIVES(shmuring_region_register_pool(region, POOL, base, PAGE, BLOCKS - 1, NULL), SHMURING_ERR_BAD_POOL);
	GIVES(shmuring_region_register_pool(region, POOL, base, PAGE, BLOCKS, NULL), 0);
	b = backend_of(region, 0, 4);
	reads_land_in_the_pool(b, base);
	a_write_is_taken_from_the_pool(b, base);
	a_cancelled_buffer_is_left_alone(b, base);
	what_is_wrong_is_refused(b);
	shmuring_prep_nop(&nop);
	GIVES(shmuring_call(b, &nop, &wait, NULL, 0, &done), 0);
	leave(b, region);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	return 0;
}
