/*
 * Description: the last-written table. `tables note REGION` notes, `tables get REGION` asks in a process of its own,
 * and prints what it was told for the test to compare; `tables alone` is about misuse, a server's life, and regions
 * without tables.
 */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define CHUNK 128

static struct shmuring_rel rel(uint8_t fork)
{
	return shmuring_rel_of(1663, 5, 16384, fork);
}

static uint64_t block_lsn(const struct shmuring_region *region, uint8_t fork, uint32_t block)
{
	uint64_t lsn = 0;

	GIVES(shmuring_written_get(region, rel(fork), block, &lsn), 0);
	return lsn;
}

static uint64_t relation_lsn(const struct shmuring_region *region, uint8_t fork)
{
	uint64_t lsn = 0;

	GIVES(shmuring_written_get_relation(region, rel(fork), &lsn), 0);
	return lsn;
}

static uint64_t database_lsn(const struct shmuring_region *region, uint32_t db_oid)
{
	uint64_t lsn = 0;

	GIVES(shmuring_written_get_database(region, db_oid, &lsn), 0);
	return lsn;
}

static uint64_t floor_of(const struct shmuring_region *region)
{
	uint64_t lsn = 0;

	GIVES(shmuring_written_floor(region, &lsn), 0);
	return lsn;
}

static void note(struct shmuring_region *region)
{
	uint32_t block;

	for (block = 0; block < 50; block++)
		GIVES(shmuring_written_note(region, rel(0), block, 8000 + 8 * (uint64_t)block), 0);
	/* The larger LSN stays. */
	GIVES(shmuring_written_note(region, rel(0), 3, 8), 0);
	GIVES(shmuring_written_note_range(region, rel(0), 1000, 8, 9000), 0);
	GIVES(shmuring_written_note_range(region, rel(0), 0, 0, 1 << 30), 0);
	GIVES(shmuring_written_note_range(region, rel(1), 100, 200, 9800), 0);
	GIVES(shmuring_written_note_relation(region, rel(2), 9900), 0);
	/* The last block that there can be. */
	GIVES(shmuring_written_note(region, rel(3), UINT32_MAX - 1, 9960), 0);
	GIVES(shmuring_written_note_all(region, 800), 0);
	GIVES(shmuring_written_note_all(region, 400), 0);
}

static void get(struct shmuring_region *region)
{
	static uint64_t lsns[51];
	uint32_t block;

	GIVES(shmuring_written_get_range(region, rel(0), 0, 51, lsns), 0);
	for (block = 0; block < 50; block++) {
		GIVES(lsns[block], 8000 + 8 * block);
		GIVES(block_lsn(region, 0, block), lsns[block]);
		printf("0 %" PRIu32 " %" PRIu64 "\n", block, lsns[block]);
	}
	GIVES(lsns[50], 800);
	for (block = 0; block < 4 * CHUNK; block += CHUNK / 2)
		printf("1 %" PRIu32 " %" PRIu64 "\n", block, block_lsn(region, 1, block));
	GIVES(block_lsn(region, 1, 0), 9800);
	GIVES(block_lsn(region, 1, 3 * CHUNK - 1), 9800);
	GIVES(block_lsn(region, 1, 3 * CHUNK), 800);
	GIVES(block_lsn(region, 0, 999), 800);
	GIVES(block_lsn(region, 0, 1007), 9000);
	GIVES(block_lsn(region, 3, UINT32_MAX - 1), 9960);
	GIVES(relation_lsn(region, 2), 9904);
	GIVES(relation_lsn(region, 0), 800);
	GIVES(database_lsn(region, 5), 9904);
	GIVES(database_lsn(region, 6), 800);
	GIVES(floor_of(region), 800);
	GIVES(shmuring_written_get_range(region, rel(0), 7, 0, NULL), 0);
}

static void null_pointers(struct shmuring_region *region, struct shmuring_backend *b)
{
	struct shmuring_rel_size size;
	uint64_t lsn = 7;

	GIVES(shmuring_written_note(NULL, rel(0), 1, 100), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_written_note_range(NULL, rel(0), 1, 1, 100), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_written_note_relation(NULL, rel(0), 100), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_written_note_all(NULL, 100), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_written_get(NULL, rel(0), 1, &lsn), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_written_get(region, rel(0), 1, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_written_get_range(NULL, rel(0), 1, 1, &lsn), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_written_get_range(region, rel(0), 1, 1, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_written_get_relation(NULL, rel(0), &lsn), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_written_get_relation(region, rel(0), NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_written_get_database(NULL, 5, &lsn), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_written_get_database(region, 5, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_written_floor(NULL, &lsn), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_written_floor(region, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_cached_rel_size(NULL, rel(0), &size), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_cached_rel_size(b, rel(0), NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_server_reset_written(NULL, 1), SHMURING_ERR_BAD_MEMORY);
	GIVES(lsn, 7);
}

static void bad_names(struct shmuring_region *region, struct shmuring_backend *b)
{
	struct shmuring_rel bad[2];
	struct shmuring_rel_size size;
	uint64_t lsn = 7;
	int i;

	bad[0] = rel(4);
	bad[1] = rel(0);
	bad[1].reserved[2] = 1;
	for (i = 0; i < 2; i++) {
		GIVES(shmuring_written_note(region, bad[i], 1, 100), SHMURING_ERR_BAD_REQUEST);
		GIVES(shmuring_written_note_range(region, bad[i], 1, 900, 100), SHMURING_ERR_BAD_REQUEST);
		GIVES(shmuring_written_note_relation(region, bad[i], 100), SHMURING_ERR_BAD_REQUEST);
		GIVES(shmuring_written_get(region, bad[i], 1, &lsn), SHMURING_ERR_BAD_REQUEST);
		GIVES(shmuring_written_get_range(region, bad[i], 1, 1, &lsn), SHMURING_ERR_BAD_REQUEST);
		GIVES(shmuring_written_get_relation(region, bad[i], &lsn), SHMURING_ERR_BAD_REQUEST);
		GIVES(shmuring_cached_rel_size(b, bad[i], &size), SHMURING_ERR_BAD_REQUEST);
	}
	GIVES(shmuring_written_note(region, rel(0), UINT32_MAX, 100), SHMURING_ERR_BAD_COUNT);
	GIVES(shmuring_written_note_range(region, rel(0), 2, UINT32_MAX - 1, 100), SHMURING_ERR_BAD_COUNT);
	GIVES(shmuring_written_get(region, rel(0), UINT32_MAX, &lsn), SHMURING_ERR_BAD_COUNT);
	GIVES(shmuring_written_get_range(region, rel(0), UINT32_MAX, 1, &lsn), SHMURING_ERR_BAD_COUNT);
	GIVES(lsn, 7);
}

static void *elsewhere(void *handle)
{
	struct shmuring_rel_size size;

	GIVES(shmuring_cached_rel_size((struct shmuring_backend *)handle, rel(0), &size), SHMURING_ERR_WRONG_THREAD);
	return NULL;
}

/* A child that inherited the region may note; what it knows of sizes it asks by a handle of its own. */
static void after_fork(struct shmuring_region *region, struct shmuring_backend *b)
{
	struct shmuring_rel_size size;
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		GIVES(shmuring_cached_rel_size(b, rel(0), &size), SHMURING_ERR_WRONG_PROCESS);
		GIVES(shmuring_written_note(region, rel(0), 77, 5000), 0);
		_exit(0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
	GIVES(block_lsn(region, 0, 77), 5000);
}

static void a_life_starts_the_table_anew(struct shmuring_region *region)
{
	struct shmuring_wait wait = patience();
	struct shmuring_server *server = NULL;

	CHECK(shmuring_server_begin(region, 42, &server, NULL) > 0);
	GIVES(shmuring_server_settle(server, &wait), 0);
	GIVES(shmuring_server_reset_written(server, 3000), 0);
	GIVES(block_lsn(region, 0, 77), 3000);
	GIVES(relation_lsn(region, 0), 3000);
	GIVES(floor_of(region), 3000);
	GIVES(shmuring_written_note(region, rel(0), 77, 2000), 0);
	GIVES(block_lsn(region, 0, 77), 3000);
	GIVES(shmuring_written_note(region, rel(0), 77, 4000), 0);
	GIVES(block_lsn(region, 0, 77), 4000);
	GIVES(shmuring_server_end(server), 0);
}

static struct shmuring_region *made(uint32_t written_buckets, uint32_t rel_sizes)
{
	struct shmuring_region_options options = {8, 1, 8192, 0, 0, {0, 0, 0}};
	struct shmuring_region *region = NULL;

	options.written_buckets = written_buckets;
	options.rel_sizes = rel_sizes;
	GIVES(shmuring_region_create_memfd(&options, &region, NULL), 0);
	return region;
}

static void without_tables(void)
{
	struct shmuring_region *region = made(SHMURING_NONE, SHMURING_NONE);
	struct shmuring_backend *b = backend_of(region, 0, 1);
	struct shmuring_rel_size size;

	GIVES(block_lsn(region, 0, 1), 0);
	GIVES(shmuring_written_note(region, rel(0), 1, 640), 0);
	GIVES(block_lsn(region, 0, 2), 640);
	GIVES(floor_of(region), 640);
	GIVES(shmuring_cached_rel_size(b, rel(0), &size), 0);
	leave(b, region);
}

static void read_only(const char *path)
{
	struct shmuring_region_options options = {8, 0, 8192, 16, 16, {0, 0, 0}};
	struct shmuring_region *region = NULL, *observed = NULL;

	GIVES(shmuring_region_create(path, &options, &region, NULL), 1);
	GIVES(shmuring_written_note(region, rel(0), 1, 640), 0);
	GIVES(shmuring_region_observe(path, &observed, NULL), 0);
	GIVES(shmuring_written_note(observed, rel(0), 1, 700), -EROFS);
	GIVES(shmuring_written_note_range(observed, rel(0), 1, 1, 700), -EROFS);
	GIVES(shmuring_written_note_relation(observed, rel(0), 700), -EROFS);
	GIVES(shmuring_written_note_all(observed, 700), -EROFS);
	GIVES(block_lsn(observed, 0, 1), 640);
	GIVES(shmuring_region_detach(observed), 0);
	GIVES(shmuring_region_detach(region), 0);
	GIVES(shmuring_region_unlink(path), 0);
}

static void alone(const char *path)
{
	struct shmuring_region *region = made(0, 0);
	struct shmuring_backend *b = backend_of(region, 0, 1);
	struct shmuring_wait wait = patience();
	pthread_t thread;

	null_pointers(region, b);
	bad_names(region, b);
	GIVES(floor_of(region), 0);
	GIVES(block_lsn(region, 0, 1), 0);
	CHECK(pthread_create(&thread, NULL, elsewhere, b) == 0 && pthread_join(thread, NULL) == 0);
	after_fork(region, b);
	GIVES(shmuring_backend_detach(b, &wait), 0);
	GIVES(shmuring_backend_free(b), 0);
	a_life_starts_the_table_anew(region);
	GIVES(shmuring_region_detach(region), 0);
	without_tables();
	read_only(path);
}

int main(int argc, char **argv)
{
	struct shmuring_region *region;

	if (argc != 3)
		return 2;
	if (strcmp(argv[1], "alone") == 0) {
		alone(argv[2]);
		return 0;
	}
	region = region_at(argv[2]);
	if (strcmp(argv[1], "note") == 0)
		note(region);
	else
		get(region);
	GIVES(shmuring_region_detach(region), 0);
	return 0;
}
