/* SPDX-License-Identifier: Apache-2.0
 *
 * status_page.c - put the page together from its parts, and say what it may do.
 */
#include "master/status_page.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/status_page_parts.h"
#include "shared/slice.h"

#define HASH_TEXT_MAX 64
#define FIELDS_MAX    768

#define PART(array) ((struct slice){(const char *)(array), sizeof(array)})

/* "sha256-..." of a part as the browser computes it: over what stands between the tags. */
static int
put_hash(char out[HASH_TEXT_MAX], struct slice part)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (EVP_Digest(part.ptr, part.len, digest, &len, EVP_sha256(), NULL) != 1) {
        return -1;
    }
    strcpy(out, "sha256-");
    EVP_EncodeBlock((unsigned char *)out + strlen(out), digest, (int)len);
    return 0;
}

static int
put_fields(char out[FIELDS_MAX])
{
    char style[HASH_TEXT_MAX], script[HASH_TEXT_MAX];
    if (put_hash(style, PART(style_css)) < 0 || put_hash(script, PART(script_js)) < 0) {
        return -1;
    }
    int n = snprintf(out, FIELDS_MAX,
                     "Content-Security-Policy: default-src 'none'; style-src '%s'; "
                     "script-src '%s'; connect-src 'self'; img-src data:; base-uri 'none'; "
                     "form-action 'none'; frame-ancestors 'none'; "
                     "require-trusted-types-for 'script'; trusted-types 'none'\r\n"
                     "Referrer-Policy: no-referrer\r\n"
                     "Cross-Origin-Opener-Policy: same-origin\r\n"
                     "Cross-Origin-Resource-Policy: same-origin\r\n",
                     style, script);
    return n > 0 && n < FIELDS_MAX ? 0 : -1;
}

static void
put_part(FILE *out, struct slice part)
{
    fwrite(part.ptr, 1, part.len, out);
}

/* The frame, with the style in the place of {style} and the script in that of {script}. */
static void
put_page(FILE *out)
{
    static const struct {
        struct slice mark, part;
    } parts[] = {{SLICE("{style}"), PART(style_css)}, {SLICE("{script}"), PART(script_js)}};
    struct slice rest = PART(page_html);
    for (size_t i = 0; i < 2; i++) {
        const char *at = memmem(rest.ptr, rest.len, parts[i].mark.ptr, parts[i].mark.len);
        if (at) {
            size_t before = (size_t)(at - rest.ptr);
            put_part(out, slice_of(rest.ptr, before));
            put_part(out, parts[i].part);
            before += parts[i].mark.len;
            rest = slice_of(rest.ptr + before, rest.len - before);
        }
    }
    put_part(out, rest);
}

char *
status_page_make(size_t *len, const char **fields)
{
    static char made[FIELDS_MAX];
    char *text = NULL;
    FILE *out = put_fields(made) == 0 ? open_memstream(&text, len) : NULL;
    if (!out) {
        return NULL;
    }
    put_page(out);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    *fields = made;
    return text;
}
