# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real NSS library of the tests' own, behind "files": it finds what lies in a directory, and does what the tests say:
answer, have no answer, be slow, hang, crash. It writes down what it was asked."""

import os
import pathlib
import subprocess
import time

from harness import kernel

MS_BIND = 4096  # linux/mount.h
PLACE = pathlib.Path("/run/directory")

SOURCE = r"""
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <nss.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int text_of(const char *path, char *text, int size)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC), got;
        if (fd < 0)
                return -1;
        got = read(fd, text, size - 1);
        close(fd);
        text[got < 0 ? 0 : got] = 0;
        return got;
}

/* Standard error is the broker's log: the library can write nowhere. */
static enum nss_status ask(const char *kind, const char *name, int *err, unsigned *id)
{
        char path[256], text[64] = "", mode[64] = "";
        if (strchr(name, '/'))
                return *err = ENOENT, NSS_STATUS_NOTFOUND;
        snprintf(path, sizeof path, "directory asked: %s %.100s\n", kind, name);
        if (write(2, path, strlen(path)) < 0)
                return *err = EIO, NSS_STATUS_UNAVAIL;
        if (strncmp(name, "local", 5)) {
                text_of("/run/directory/mode", mode, sizeof mode);
                if (!strncmp(mode, "slow ", 5))
                        poll(0, 0, atoi(mode + 5));
                if (!strncmp(mode, "hang", 4) && (!mode[4] || !strcmp(mode + 5, name)))
                        do
                                poll(0, 0, 100);
                        while (text_of("/run/directory/mode", mode, sizeof mode) < 0 || !strncmp(mode, "hang", 4));
                if (!strncmp(mode, "crash", 5) && strstr(name, "crash"))
                        __builtin_trap();
                if (!strncmp(mode, "tryagain", 8))
                        return *err = EAGAIN, NSS_STATUS_TRYAGAIN;
                if (!strncmp(mode, "unavail", 7))
                        return *err = ENOENT, NSS_STATUS_UNAVAIL;
        }
        snprintf(path, sizeof path, "/run/directory/%ss/%s", kind, name);
        if (text_of(path, text, sizeof text) < 0)
                return *err = ENOENT, NSS_STATUS_NOTFOUND;
        *id = atoi(text);
        return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_testdir_getpwnam_r(const char *name, struct passwd *pw, char *buf, size_t len, int *err)
{
        unsigned id = 0;
        enum nss_status status = ask("user", name, err, &id);
        if (status != NSS_STATUS_SUCCESS)
                return status;
        if (len < 256)
                return *err = ERANGE, NSS_STATUS_TRYAGAIN;
        snprintf(buf, len, "%.200s", name);
        *pw = (struct passwd){buf, "x", id, id, "", "/", "/bin/false"};
        return status;
}

enum nss_status _nss_testdir_getgrnam_r(const char *name, struct group *gr, char *buf, size_t len, int *err)
{
        static char *nobody[] = {0};
        unsigned id = 0;
        enum nss_status status = ask("group", name, err, &id);
        if (status != NSS_STATUS_SUCCESS)
                return status;
        if (len < 256)
                return *err = ERANGE, NSS_STATUS_TRYAGAIN;
        snprintf(buf, len, "%.200s", name);
        *gr = (struct group){buf, "x", id, nobody};
        return status;
}

/* Nobody is a member of more groups by it. */
enum nss_status _nss_testdir_initgroups_dyn(const char *name, gid_t own, long *start, long *size, gid_t **groups,
                                            long limit, int *err)
{
        unsigned id;
        (void)own, (void)start, (void)size, (void)groups, (void)limit;
        return ask("groups of", name, err, &id);
}

/* `names/ID` has the name. */
enum nss_status _nss_testdir_getpwuid_r(uid_t uid, struct passwd *pw, char *buf, size_t len, int *err)
{
        char path[64], number[16], text[64] = "";
        unsigned id;
        enum nss_status status;
        snprintf(number, sizeof number, "%u", uid);
        status = ask("name", number, err, &id);
        if (status != NSS_STATUS_SUCCESS)
                return status;
        snprintf(path, sizeof path, "/run/directory/names/%u", uid);
        text_of(path, text, sizeof text);
        snprintf(buf, len, "%.60s", text);
        *pw = (struct passwd){buf, "x", uid, uid, "", "/", "/bin/false"};
        return status;
}
"""


def let_answers_grow_old():
    """An answer is good for a second (Admissions::kFreshUsec): after that the broker asks again. Nothing tells when."""
    time.sleep(1.1)


class Directory:
    """Names that begin with "local" are always answered at once."""

    def __init__(self, broker):
        """For a broker that is not started yet."""
        for folder in ("users", "groups", "names"):
            (PLACE / folder).mkdir(parents=True)
        (PLACE / "nss.c").write_text(SOURCE)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", PLACE / "libnss_testdir.so.2", PLACE / "nss.c"], check=True)
        (PLACE / "nsswitch.conf").write_text("passwd: files testdir\ngroup: files testdir\n")
        kernel.mount(str(PLACE / "nsswitch.conf"), "/etc/nsswitch.conf", None, MS_BIND)
        broker.environment["LD_LIBRARY_PATH"] = str(PLACE)
        self.says("ok")

    def says(self, mode):
        """ok, tryagain, unavail, "slow MS", hang (until it says something else), "hang NAME" (for that one), crash
        (names with "crash" in them)."""
        (PLACE / "mode").unlink(missing_ok=True)
        new = PLACE / "mode.new"
        new.write_text(mode)
        os.rename(new, PLACE / "mode")

    def add(self, name, uid, kind="user"):
        (PLACE / f"{kind}s" / name).write_text(str(uid))
        if kind == "user":
            (PLACE / "names" / str(uid)).write_text(name)

    def remove(self, name, kind="user"):
        place = PLACE / f"{kind}s" / name
        if kind == "user":
            (PLACE / "names" / place.read_text()).unlink(missing_ok=True)
        place.unlink()
