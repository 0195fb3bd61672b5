/* SPDX-License-Identifier: Apache-2.0
 *
 * child.c - waking another process of the family.
 */
#include "shared/child.h"

#include <unistd.h>

void
child_wake(int wake_fd)
{
    uint64_t one = 1;
    /* An eventfd whose counter is full refuses, but then its owner is awake already. */
    ssize_t n = write(wake_fd, &one, sizeof(one));
    (void)n;
}
