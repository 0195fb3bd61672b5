/* SPDX-License-Identifier: Apache-2.0
 *
 * title.h - what ps shows of this process: "akashd: worker 0".
 */
#ifndef SHARED_TITLE_H
#define SHARED_TITLE_H

/* Once, before anything keeps a pointer into argv or the environment: moves both aside, argv[] and
 * environ then name the copies, and takes their old place for titles. Without memory titles stay as
 * they are. */
void
title_init(int argc, char **argv);

/* The whole title; cut to the place there is. Nothing happens without title_init. */
void
title_set(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
