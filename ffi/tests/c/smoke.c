/*
 * Description: every call of a backend once, in the order of a request's way, with a communicator in another process.
 * `smoke REGION FIRST COUNT`. The communicator answers a read with pages whose bytes are the block number, and any
 * other request with its block number as value.
 */
#include <setjmp.h>

#include "check.h"

#define PAGE 8192

static struct shmuring_rel rel(void)
{
	return shmuring_rel_of(1663, 5, 16384, 0);
}

static void is_page(const unsigned char *page, uint32_t block)
{
	size_t i;

	for (i = 0; i < PAGE; i++)
		CHECK(page[i] == (unsigned char)block);
}

/* One at a time: by hand, by the short calls, and by one call for all. */
static void single(struct shmuring_backend *b)
{
	struct shmuring_wait wait = patience();
	struct shmuring_completion done;
	struct shmuring_request request;
	unsigned char pages[2 * PAGE];
	const void *page = NULL;
	shmuring_ref ref;
	uint32_t block;
	int slot;

	for (block = 0; block < 40; block++) {
		slot = shmuring_free_slot(b);
		CHECK(slot >= 0);
		GIVES(shmuring_state(b, (uint32_t)slot), SHMURING_STATE_IDLE);
		if (block % 2 == 0) {
			shmuring_prep_get_page(&request, rel(), block, 1, 1);
			ref = shmuring_fill(b, (uint32_t)slot, &request);
		} else {
			ref = shmuring_fill_get_page(b, (uint32_t)slot, rel(), block, 1);
		}
		CHECK(ref >= 0 && shmuring_ref_slot(ref) == (uint32_t)slot);
		GIVES(shmuring_state(b, (uint32_t)slot), SHMURING_STATE_FILLING);
		GIVES(shmuring_poll(b, ref), SHMURING_ERR_NOT_COMPLETED);
		GIVES(shmuring_submit(b, ref), 0);
		GIVES(shmuring_wait(b, ref, &wait), 0);
		GIVES(shmuring_poll(b, ref), 1);
		GIVES(shmuring_result(b, ref, &done), 0);
		CHECK(done.error == 0 && done.value == 1);
		GIVES(shmuring_page(b, ref, 0, &page), 0);
		is_page((const unsigned char *)page, block);
		GIVES(shmuring_page(b, ref, 1, &page), SHMURING_ERR_BAD_BUFFER);
		GIVES(shmuring_finish(b, ref, &done), 0);
		GIVES(shmuring_poll(b, ref), SHMURING_ERR_STALE);
	}
	shmuring_prep_get_page(&request, rel(), 77, 2, 1);
	GIVES(shmuring_call(b, &request, &wait, pages, sizeof pages, &done), 0);
	CHECK(done.error == 0 && done.value == 2);
	is_page(pages, 77);
	is_page(pages + PAGE, 78);
}

/* Several in flight, whichever is complete first. */
static void many(struct shmuring_backend *b, uint32_t count)
{
	struct shmuring_wait wait = patience();
	struct shmuring_request request;
	shmuring_ref refs[64];
	const void *page = NULL;
	uint32_t i, left;
	int slot;

	CHECK(count <= 64);
	for (i = 0; i < count; i++) {
		slot = shmuring_wait_free(b, &wait);
		CHECK(slot >= 0);
		refs[i] = shmuring_fill_get_page(b, (uint32_t)slot, rel(), i, 1);
		CHECK(refs[i] >= 0);
	}
	GIVES(shmuring_free_slot(b), SHMURING_ERR_NO_FREE_SLOT);
	GIVES(shmuring_backend_usable(b), 0);
	GIVES(shmuring_submit_many(b, refs, count), 0);
	GIVES(shmuring_submit_many(b, refs, 0), 0);
	for (left = count; left > 0; left--) {
		int at = shmuring_wait_any(b, refs, left, &wait);

		CHECK(at >= 0 && (uint32_t)at < left);
		GIVES(shmuring_page(b, refs[at], 0, &page), 0);
		GIVES(shmuring_finish(b, refs[at], NULL), 0);
		refs[at] = refs[left - 1];
	}
	for (i = 0; i < count; i++) {
		shmuring_prep_prefetch(&request, rel(), i, 1, 1);
		refs[i] = i % 2 == 0 ? shmuring_start_get_page(b, rel(), i, 1) : shmuring_start(b, &request);
		CHECK(refs[i] >= 0);
	}
	for (i = 0; i < count; i++) {
		struct shmuring_completion done;

		GIVES(shmuring_wait(b, refs[i], &wait), 0);
		GIVES(shmuring_finish(b, refs[i], &done), 0);
		CHECK(done.error == 0 && done.value == (i % 2 == 0 ? 1 : i));
	}
}

/* Each kind of request comes to the communicator as it was stated: it answers with what it saw. */
static void kinds(struct shmuring_backend *b)
{
	static unsigned char image[2 * PAGE];
	struct shmuring_wait wait = patience();
	struct shmuring_request r[16];
	struct shmuring_completion done;
	const struct shmuring_rel main_fork = rel();
	uint32_t i;

	memset(image, 0x5a, sizeof image);
	shmuring_prep_nop(&r[0]);
	shmuring_prep_get_page(&r[1], main_fork, 1, 2, 1);
	shmuring_prep_prefetch(&r[2], main_fork, 2, 32, 1);
	shmuring_prep_rel_size(&r[3], main_fork, 1, 1);
	shmuring_prep_rel_exists(&r[4], main_fork, 1);
	shmuring_prep_db_size(&r[5], 5, 1);
	shmuring_prep_read_slru(&r[6], 0, 6, 1, 1);
	shmuring_prep_write_page(&r[7], main_fork, 7, 2, 1, image);
	shmuring_prep_extend(&r[8], main_fork, 8, 1, image);
	shmuring_prep_zero_extend(&r[9], main_fork, 9, 100, 1);
	shmuring_prep_create(&r[10], main_fork, 1);
	shmuring_prep_truncate(&r[11], main_fork, 11, 1);
	shmuring_prep_unlink(&r[12], main_fork, 1);
	shmuring_prep_update_rel_size(&r[13], main_fork, 13, 1);
	shmuring_prep_get_page_at(&r[14], main_fork, 14, 1, 9, 1);
	shmuring_prep_sync(&r[15]);
	for (i = 0; i < 16; i++) {
		CHECK(r[i].opcode == i);
		shmuring_set_class(&r[i], SHMURING_CLASS_BACKGROUND);
		shmuring_set_deadline(&r[i], shmuring_deadline_ms(20000));
		GIVES(shmuring_call(b, &r[i], &wait, NULL, 0, &done), 0);
		CHECK(done.error == 0);
	}
}

/* Mutations whose answers nobody takes: their slots come back all the same. */
static void forgotten(struct shmuring_backend *b, uint32_t count)
{
	struct shmuring_wait wait = patience();
	struct shmuring_request create;
	shmuring_ref refs[64];
	uint32_t i;
	int slot;

	shmuring_prep_create(&create, rel(), 1);
	for (i = 0; i < count; i++) {
		refs[i] = shmuring_start(b, &create);
		CHECK(refs[i] >= 0);
		GIVES(shmuring_forget(b, refs[i]), 0);
	}
	for (i = 0; i < count; i++) {
		slot = shmuring_wait_free(b, &wait);
		CHECK(slot >= 0);
		refs[i] = shmuring_fill_get_page(b, (uint32_t)slot, rel(), i, 1);
		GIVES(shmuring_forget(b, refs[i]), SHMURING_ERR_NOT_FILLING);
	}
	for (i = 0; i < count; i++) {
		GIVES(shmuring_cancel(b, refs[i], &wait), SHMURING_CANCEL_WITHDRAWN);
		GIVES(shmuring_forget(b, refs[i]), SHMURING_ERR_STALE);
	}
}

/* What is left by the jumps: all else of a request is the handle's. */
static jmp_buf out;
static shmuring_ref jumped;
static int jumps;

/* One call on the way of a request, and then an error of the embedder's that ends everything up to `out`. */
static void step(struct shmuring_backend *b, int number, uint32_t block)
{
	struct shmuring_wait wait = patience(), none = {0, NULL, 0};
	struct shmuring_completion done;
	const void *page = NULL;

	switch (number) {
	case 0: CHECK(shmuring_free_slot(b) >= 0); break;
	case 1: jumped = shmuring_fill_get_page(b, (uint32_t)shmuring_free_slot(b), rel(), block, 1); break;
	case 2: GIVES(shmuring_submit(b, jumped), 0); break;
	case 3: (void)shmuring_wait(b, jumped, &none); break;
	case 4: GIVES(shmuring_wait(b, jumped, &wait), 0); break;
	case 5: GIVES(shmuring_result(b, jumped, &done), 0); break;
	case 6:
		GIVES(shmuring_page(b, jumped, 0, &page), 0);
		is_page((const unsigned char *)page, block);
		break;
	default: GIVES(shmuring_finish(b, jumped, NULL), 0); break;
	}
	jumps++;
	longjmp(out, 1);
}

/* As ereport(ERROR) of PostgreSQL does, between any two calls. */
static void jumped_over(struct shmuring_backend *b, uint32_t count)
{
	volatile uint32_t block;
	volatile int number;

	for (block = 0; block < 50; block++)
		for (number = 0; number < 8; number++)
			if (setjmp(out) == 0)
				step(b, number, block);
	CHECK(jumps == 50 * 8);
	GIVES(shmuring_backend_usable(b), count);
}

static void tells(struct shmuring_region *region, uint32_t first)
{
	struct shmuring_region_info info;
	struct shmuring_owner_stats own;
	struct shmuring_role_stats role;

	GIVES(shmuring_region_info(region, &info), 0);
	CHECK(info.block_size == PAGE && info.communicator == 1 && info.epoch > 0 && info.is_read_only == 0);
	CHECK(shmuring_region_fd(region) >= 0);
	GIVES(shmuring_owner_statistics(region, first, &own), 0);
	CHECK(own.counters[SHMURING_OWNER_SUBMITTED] > 40);
	CHECK(own.counters[SHMURING_OWNER_FINISHED] == own.counters[SHMURING_OWNER_SUBMITTED]);
	GIVES(shmuring_role_statistics(region, &role), 0);
	/* Counted at the end of each batch. */
	CHECK(role.counters[SHMURING_ROLE_CLAIMED] > 40);
	GIVES(shmuring_owner_statistics(region, info.slots, &own), SHMURING_ERR_BAD_SLOT);
}

int main(int argc, char **argv)
{
	struct shmuring_wait wait = patience();
	struct shmuring_leftover leftover;
	struct shmuring_region *region;
	struct shmuring_backend *b;
	uint32_t first, count;

	if (argc != 4)
		return 2;
	first = (uint32_t)strtoul(argv[2], NULL, 10);
	count = (uint32_t)strtoul(argv[3], NULL, 10);
	region = region_at(argv[1]);
	b = backend_of(region, first, count);
	GIVES(shmuring_next_leftover(b, &wait, &leftover), 0);
	GIVES(shmuring_backend_usable(b), count);
	single(b);
	many(b, count);
	kinds(b);
	forgotten(b, count);
	jumped_over(b, count);
	tells(region, first);
	leave(b, region);
	return 0;
}
