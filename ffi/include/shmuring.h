/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmuring.h: the C interface of shmuring, a lock-free shared-memory I/O ring for databases that run a process per
 * connection.
 *
 * C99, C11 or C++17, of GCC or Clang, on 64-bit little-endian Linux. Link with -lshmuring.
 *
 *	shmuring/types.h   numbers, and the structures that calls take and give
 *	shmuring/layout.h  what lies in a region, for tools and debuggers
 *
 * Return values: 0 or more is success; below 0 is an errno, negated, one of SHMURING_ERR_* or what a system call said.
 * Nothing here sets errno, ends the process, unwinds or longjmps. -ENOTRECOVERABLE is a bug in the library that was
 * caught at its edge: give the handle up.
 */
#ifndef SHMURING_H
#define SHMURING_H

#include "shmuring/types.h"
#include "shmuring/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A region in this process. */
struct shmuring_region;
/* A hold on a range of request slots. */
struct shmuring_backend;

/*
 * The version of the library that was linked, as "major.minor.patch". Static; never NULL. Neither blocks nor
 * allocates.
 */
const char *shmuring_version(void);

/*
 * SHMURING_ABI_VERSION of the library that was linked. If it is not this header's, use neither the structures of
 * shmuring/layout.h nor any region that the library makes. Neither blocks nor allocates.
 */
uint32_t shmuring_abi_version(void);

/*
 * A sentence about `code`. Below 0: what a call of this library returned. Above 0: the errno of a result, told in the
 * words of strerror(3). 0: "success". Any int may be given; never NULL. Copy it before the thread's next call of this
 * or of strerror. Neither blocks nor allocates.
 */
const char *shmuring_strerror(int code);

/*
 * Bytes that a region takes with `slots` request slots in all, `bounce_per_slot` (0 to 1024) bounce buffers for each,
 * and blocks of `block_size` bytes (a power of two from 512 to 65536); stored in *bytes.
 *
 * Returns 0; SHMURING_ERR_BAD_GEOMETRY for other sizes; SHMURING_ERR_BAD_MEMORY if `bytes` is NULL. On an error *bytes
 * is as it was. Neither blocks nor allocates.
 */
int shmuring_region_size(uint32_t slots, uint32_t bounce_per_slot, uint32_t block_size, uint64_t *bytes);

#ifdef __cplusplus
}
#endif

#endif /* SHMURING_H */
