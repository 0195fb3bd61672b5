/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_names.c - what the monitor says of a name, what the resolver's child does, and the part of a
 * DNS message that is read here; by the first byte.
 */
#include "master/found.h"
#include "master/resolver.h"
#include "t/fuzz/fuzz.h"

static void
take_answer(struct slice text)
{
    static struct found_answer answer, again;
    char host[FOUND_HOST_MAX], out[FOUND_ANSWER_MAX];
    if (found_answer_parse(text, &answer) < 0) {
        return;
    }
    FUZZ_EXPECT(answer.n >= 1 && answer.n <= CONF_FOUND_MAX);
    FUZZ_EXPECT(answer.host.len < sizeof(host));
    if (memchr(answer.host.ptr, '\0', answer.host.len)) {
        return; /* no configuration has such a name */
    }
    memcpy(host, answer.host.ptr, answer.host.len);
    host[answer.host.len] = '\0';
    size_t len = found_answer_format(host, answer.is_srv, answer.found, answer.n, out);
    FUZZ_EXPECT(len <= sizeof(out));
    FUZZ_EXPECT(found_answer_parse(slice_of(out, len), &again) == 0);
    FUZZ_EXPECT(found_same(answer.found, answer.n, again.found, again.n));
    found_describe(NULL, 0, answer.found, answer.n, out, sizeof(host));
    FUZZ_EXPECT(strlen(out) < sizeof(host));
}

static void
take_lines(struct slice text)
{
    struct resolver_names names = {0};
    resolver_names_add(&names, "a", false);
    resolver_names_add(&names, "b", true);
    while (text.len > 0) {
        const char *end = memchr(text.ptr, '\n', text.len);
        size_t len = end ? (size_t)(end - text.ptr) : text.len;
        resolver_names_take(&names, slice_of(text.ptr, len));
        len += end != NULL;
        text = slice_of(text.ptr + len, text.len - len);
    }
    FUZZ_EXPECT(names.list[0].count <= CONF_FOUND_MAX && names.list[1].count <= CONF_FOUND_MAX);
    resolver_names_fini(&names);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0) {
        return 0;
    }
    uint32_t ttl_s = 0;
    char *copy = fuzz_exact_copy(bytes + 1, len - 1);
    switch (bytes[0] % 3) {
    case 0: take_answer(slice_of(copy, len - 1)); break;
    case 1: take_lines(slice_of(copy, len - 1)); break;
    default:
        if (found_least_ttl((const unsigned char *)copy, len - 1, &ttl_s) == 0) {
            FUZZ_EXPECT(ttl_s <= INT32_MAX);
        }
    }
    free(copy);
    return 0;
}
