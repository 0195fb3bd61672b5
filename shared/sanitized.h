/* SPDX-License-Identifier: Apache-2.0
 *
 * sanitized.h - is this a build with AddressSanitizer?
 *
 * Memory that is kept for reuse hides from it who uses what was freed: such a build keeps none.
 */
#ifndef SHARED_SANITIZED_H
#define SHARED_SANITIZED_H

#include <stdbool.h>

#if defined(__SANITIZE_ADDRESS__)
#define IS_SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IS_SANITIZED true
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED false
#endif

/* May one more that is free be kept, when there are so many already? */
#define KEEPS_FREED(count, most) (!IS_SANITIZED && (count) < (most))

#endif
