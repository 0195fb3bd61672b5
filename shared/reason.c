/* SPDX-License-Identifier: Apache-2.0
 *
 * reason.c - the table of reason.h.
 */
#include "shared/reason.h"

const struct reason_info reason_table[REASON_COUNT] = {
#define REASON_ROW(token, status, text) {#token, status, text},
    REASONS(REASON_ROW)
#undef REASON_ROW
};
