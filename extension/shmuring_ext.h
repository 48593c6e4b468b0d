/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmuring_ext.h: what the files of the extension share. Everything here runs in processes of PostgreSQL: no threads,
 * and no frame of the library below a place that may longjmp (ereport, CHECK_FOR_INTERRUPTS).
 *
 *	shmuring.c  the module: version, _PG_init
 */
#ifndef SHMURING_EXT_H
#define SHMURING_EXT_H

#include "postgres.h"

#include "fmgr.h"

#include <shmuring.h>

#endif /* SHMURING_EXT_H */
