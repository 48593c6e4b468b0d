/*
 * Description: the inline functions of the header and those of the same name that the library exports do the same.
 * `same REGION` attaches slot 0, writes words into it and prints for each what a poll and a look at the state give, for
 * the test to compare with what Rust says of the same words.
 */
#include <sys/mman.h>

#include "check.h"

/* What the library exports, under names that the header does not take. */
#define EXPORTED(type, name, arguments) extern type lib_##name arguments __asm__("shmuring_" #name)

#ifdef __cplusplus
extern "C" {
#endif
EXPORTED(int, poll, (const struct shmuring_backend *, shmuring_ref));
EXPORTED(int, state, (const struct shmuring_backend *, uint32_t));
EXPORTED(uint32_t, ref_slot, (shmuring_ref));
EXPORTED(uint32_t, ref_generation, (shmuring_ref));
EXPORTED(struct shmuring_rel, rel_of, (uint32_t, uint32_t, uint32_t, uint8_t));
EXPORTED(void, prep, (struct shmuring_request *, uint8_t, struct shmuring_rel, uint64_t));
EXPORTED(void, prep_nop, (struct shmuring_request *));
EXPORTED(void, prep_get_page, (struct shmuring_request *, struct shmuring_rel, uint32_t, uint8_t, uint64_t));
EXPORTED(void, prep_prefetch, (struct shmuring_request *, struct shmuring_rel, uint32_t, uint8_t, uint64_t));
EXPORTED(void, prep_rel_size, (struct shmuring_request *, struct shmuring_rel, uint64_t, int));
EXPORTED(void, prep_rel_exists, (struct shmuring_request *, struct shmuring_rel, uint64_t));
EXPORTED(void, prep_db_size, (struct shmuring_request *, uint32_t, uint64_t));
EXPORTED(void, prep_read_slru, (struct shmuring_request *, uint32_t, uint32_t, uint8_t, uint64_t));
EXPORTED(void, prep_write_page,
	 (struct shmuring_request *, struct shmuring_rel, uint32_t, uint8_t, uint64_t, const void *));
EXPORTED(void, prep_extend, (struct shmuring_request *, struct shmuring_rel, uint32_t, uint64_t, const void *));
EXPORTED(void, prep_zero_extend, (struct shmuring_request *, struct shmuring_rel, uint32_t, uint32_t, uint64_t));
EXPORTED(void, prep_create, (struct shmuring_request *, struct shmuring_rel, uint64_t));
EXPORTED(void, prep_truncate, (struct shmuring_request *, struct shmuring_rel, uint32_t, uint64_t));
EXPORTED(void, prep_unlink, (struct shmuring_request *, struct shmuring_rel, uint64_t));
EXPORTED(void, prep_update_rel_size, (struct shmuring_request *, struct shmuring_rel, uint32_t, uint64_t));
EXPORTED(void, prep_get_page_at,
	 (struct shmuring_request *, struct shmuring_rel, uint32_t, uint8_t, uint64_t, uint64_t));
EXPORTED(void, prep_sync, (struct shmuring_request *));
EXPORTED(void, set_class, (struct shmuring_request *, uint8_t));
EXPORTED(void, set_deadline, (struct shmuring_request *, uint64_t));
EXPORTED(void, set_request_lsn, (struct shmuring_request *, uint64_t));
EXPORTED(void, set_block_lsns, (struct shmuring_request *, const uint64_t *));
EXPORTED(void, set_buffers, (struct shmuring_request *, uint16_t, const uint32_t *));
#ifdef __cplusplus
}
#endif

static int compared;

/* Calls both with a request of other bytes before, and compares what they leave there. */
#define SAME(name, ...) \
	do { \
		struct shmuring_request inline_, exported_; \
		memset(&inline_, 0xa5 + compared, sizeof inline_); \
		memset(&exported_, 0xa5 + compared, sizeof exported_); \
		shmuring_##name(&inline_, __VA_ARGS__); \
		lib_##name(&exported_, __VA_ARGS__); \
		if (memcmp(&inline_, &exported_, sizeof inline_) != 0) { \
			fprintf(stderr, "%s: inline and exported differ\n", #name); \
			exit(1); \
		} \
		compared++; \
	} while (0)

static void prepared(uint32_t n)
{
	static const uint64_t lsns[2] = {1, 2};
	static const uint32_t buffers[2] = {3, 4};
	struct shmuring_rel rel = shmuring_rel_of(n, n + 1, n + 2, (uint8_t)(n % 5));
	struct shmuring_rel exported = lib_rel_of(n, n + 1, n + 2, (uint8_t)(n % 5));
	struct shmuring_request one, two;
	uint8_t count = (uint8_t)n;
	uint64_t lsn = n * UINT64_C(0x123456789);

	CHECK(memcmp(&rel, &exported, sizeof rel) == 0);
	shmuring_prep_nop(&one);
	lib_prep_nop(&two);
	CHECK(memcmp(&one, &two, sizeof one) == 0);
	shmuring_prep_sync(&one);
	lib_prep_sync(&two);
	CHECK(memcmp(&one, &two, sizeof one) == 0);
	SAME(prep, (uint8_t)n, rel, lsn);
	SAME(prep_get_page, rel, n, count, lsn);
	SAME(prep_prefetch, rel, n, count, lsn);
	SAME(prep_rel_size, rel, lsn, (int)(n % 3));
	SAME(prep_rel_exists, rel, lsn);
	SAME(prep_db_size, n, lsn);
	SAME(prep_read_slru, n % 3, n, count, lsn);
	SAME(prep_write_page, rel, n, count, lsn, (const void *)lsns);
	SAME(prep_extend, rel, n, lsn, (const void *)lsns);
	SAME(prep_zero_extend, rel, n, n + 9, lsn);
	SAME(prep_create, rel, lsn);
	SAME(prep_truncate, rel, n, lsn);
	SAME(prep_unlink, rel, lsn);
	SAME(prep_update_rel_size, rel, n, lsn);
	SAME(prep_get_page_at, rel, n, count, lsn + 1, lsn);
	SAME(set_class, (uint8_t)n);
	SAME(set_deadline, lsn);
	SAME(set_request_lsn, lsn);
	SAME(set_block_lsns, lsns);
	SAME(set_buffers, (uint16_t)n, buffers);
}

/* The first slot of a region, mapped once more. */
static struct shmuring_slot *slots_of(const struct shmuring_region *region)
{
	struct shmuring_region_info info;
	struct shmuring_header *header;
	void *at;

	GIVES(shmuring_region_info(region, &info), 0);
	at = mmap(NULL, (size_t)info.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shmuring_region_fd(region), 0);
	CHECK(at != MAP_FAILED);
	header = (struct shmuring_header *)at;
	CHECK(header->magic == SHMURING_MAGIC && header->config.slots == info.slots);
	return (struct shmuring_slot *)(void *)((char *)at + header->config.offsets[3]);
}

static void looked_at(const struct shmuring_backend *b, struct shmuring_slot *slot, uint64_t word, uint32_t generation)
{
	shmuring_ref ref = (shmuring_ref)((uint64_t)generation << 32);
	int poll, state;

	__atomic_store_n(&slot->word, word, __ATOMIC_RELEASE);
	poll = shmuring_poll(b, ref);
	state = shmuring_state(b, 0);
	GIVES(lib_poll(b, ref), poll);
	/* Only the library knows which bytes are no state. */
	if ((word & SHMURING_WORD_STATE) <= SHMURING_STATE_WITHDRAWN)
		GIVES(lib_state(b, 0), state);
	CHECK(lib_ref_slot(ref) == shmuring_ref_slot(ref) && shmuring_ref_slot(ref) == 0);
	CHECK(lib_ref_generation(ref) == shmuring_ref_generation(ref) && shmuring_ref_generation(ref) == generation);
	printf("%" PRIu64 " %" PRIu32 " %d %d\n", word, generation, poll, state);
}

int main(int argc, char **argv)
{
	static const uint32_t generations[] = {0, 1, 2, 0x7fffff, 0xfffffe, 0xffffff, 0x1000000, 0x1000001, UINT32_MAX};
	struct shmuring_region *region;
	struct shmuring_backend *b;
	struct shmuring_slot *slot;
	uint32_t i, j, state, bits;
	uint64_t word;

	if (argc != 2)
		return 2;
	for (i = 0; i < 300; i++)
		prepared(i);
	region = region_at(argv[1]);
	b = backend_of(region, 0, 1);
	slot = slots_of(region);
	for (i = 0; i < 6; i++)
		for (state = 0; state < 16; state++)
			for (bits = 0; bits < 4; bits++)
				for (j = 0; j < sizeof generations / sizeof *generations; j++) {
					word = (uint64_t)generations[i] << SHMURING_WORD_GENERATION_SHIFT | state;
					word |= bits & 1 ? SHMURING_WORD_WAITER : 0;
					word |= bits & 2 ? UINT64_C(7) << SHMURING_WORD_EPOCH_SHIFT : 0;
					looked_at(b, slot, word, generations[j]);
				}
	GIVES(shmuring_poll(b, 1), SHMURING_ERR_BAD_SLOT);
	GIVES(lib_poll(b, 1), SHMURING_ERR_BAD_SLOT);
	GIVES(shmuring_state(b, 1), SHMURING_ERR_BAD_SLOT);
	GIVES(lib_state(b, UINT32_MAX), SHMURING_ERR_BAD_SLOT);
	GIVES(shmuring_poll(b, -1), SHMURING_ERR_BAD_SLOT);
	__atomic_store_n(&slot->word, 0, __ATOMIC_RELEASE);
	leave(b, region);
	return 0;
}
