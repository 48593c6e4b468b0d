/*
 * Description: versions, sizes and error texts through the linked library, printed a line each for the test to compare.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shmuring.h"

int main(int argc, char **argv)
{
	uint64_t bytes = 7;
	int rc;

	if (argc != 4)
		return 2;
	if (shmuring_abi_version() != SHMURING_ABI_VERSION)
		return 3;
	if (shmuring_region_size(0, 0, 8192, &bytes) != SHMURING_ERR_BAD_GEOMETRY || bytes != 7)
		return 4;
	if (shmuring_region_size(8, 0, 8192, NULL) != SHMURING_ERR_BAD_MEMORY)
		return 5;
	if (strlen(shmuring_strerror(SHMURING_ERR_WRONG_MAGIC)) == 0 || strcmp(shmuring_strerror(0), "success") != 0)
		return 6;

	rc = shmuring_region_size((uint32_t)strtoul(argv[1], NULL, 10), (uint32_t)strtoul(argv[2], NULL, 10),
				  (uint32_t)strtoul(argv[3], NULL, 10), &bytes);
	printf("%s\n%d\n%" PRIu64 "\n", shmuring_version(), rc, bytes);
	return 0;
}
