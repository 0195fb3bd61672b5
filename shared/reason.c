/* SPDX-License-Identifier: Apache-2.0
 *
 * reason.c - the table of reason.h.
 */
#include "shared/reason.h"

#include "shared/grpc.h"

const struct reason_info reason_table[REASON_COUNT] = {
#define REASON_ROW(token, status, code, text) {#token, status, GRPC_##code, text},
    REASONS(REASON_ROW)
#undef REASON_ROW
};
