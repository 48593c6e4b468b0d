/*
 * Description: versions, sizes and error texts through the linked library; sizes are printed for the test to compare:
 * `info SLOTS BOUNCE BLOCK WRITTEN SIZES`.
 */
#include "check.h"

static void versions(void)
{
	char text[64];

	snprintf(text, sizeof text, "%d.%d.%d", SHMURING_VERSION_MAJOR, SHMURING_VERSION_MINOR, SHMURING_VERSION_PATCH);
	CHECK(strcmp(shmuring_version(), text) == 0);
	CHECK(shmuring_version_number() == SHMURING_VERSION_NUMBER);
	CHECK(shmuring_abi_version() == SHMURING_ABI_VERSION);
	CHECK(shmuring_features() == SHMURING_FEATURES);
	GIVES(shmuring_check_version(SHMURING_VERSION_NUMBER, SHMURING_ABI_VERSION), 0);
	GIVES(shmuring_check_version(SHMURING_VERSION_NUMBER + 1, SHMURING_ABI_VERSION), SHMURING_ERR_WRONG_ABI);
	GIVES(shmuring_check_version(SHMURING_VERSION_NUMBER, SHMURING_ABI_VERSION + 1), SHMURING_ERR_WRONG_ABI);
}

static void refusals(void)
{
	struct shmuring_region_options options = {8, 0, 8192, 0, 0, {0, 0, 0}};
	uint64_t bytes = 7;

	GIVES(shmuring_region_size(&options, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_region_size(NULL, &bytes), SHMURING_ERR_BAD_MEMORY);
	options.slots = 0;
	GIVES(shmuring_region_size(&options, &bytes), SHMURING_ERR_BAD_GEOMETRY);
	options.slots = 8;
	options.reserved[2] = 1;
	GIVES(shmuring_region_size(&options, &bytes), SHMURING_ERR_BAD_REQUEST);
	options.reserved[2] = 0;
	options.written_buckets = (UINT32_C(1) << 26) + 1;
	GIVES(shmuring_region_size(&options, &bytes), SHMURING_ERR_BAD_GEOMETRY);
	options.written_buckets = 0;
	options.rel_sizes = (UINT32_C(1) << 24) + 1;
	GIVES(shmuring_region_size(&options, &bytes), SHMURING_ERR_BAD_GEOMETRY);
	CHECK(bytes == 7);
}

int main(int argc, char **argv)
{
	struct shmuring_region_options options;
	uint64_t bytes = 0;

	if (argc != 6)
		return 2;
	versions();
	refusals();
	CHECK(strlen(shmuring_strerror(SHMURING_ERR_WRONG_MAGIC)) > 0 && strcmp(shmuring_strerror(0), "success") == 0);

	memset(&options, 0, sizeof options);
	options.slots = (uint32_t)strtoul(argv[1], NULL, 10);
	options.bounce_per_slot = (uint32_t)strtoul(argv[2], NULL, 10);
	options.block_size = (uint32_t)strtoul(argv[3], NULL, 10);
	options.written_buckets = (uint32_t)strtoul(argv[4], NULL, 10);
	options.rel_sizes = (uint32_t)strtoul(argv[5], NULL, 10);
	GIVES(shmuring_region_size(&options, &bytes), 0);
	printf("%" PRIu64 "\n", bytes);
	return 0;
}
