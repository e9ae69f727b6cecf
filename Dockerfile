# One image for every role: docker run IMAGE worker. How to add handlers, and what each role needs, is in docs/deploying.md.

ARG PYTHON=3.13-slim-trixie

# Build: nothing of this stage but what it has installed gets into the image ---------------------------------------------------------------
FROM python:${PYTHON} AS build

# More to install beside jobqueue, as pip takes it, separated by spaces: packages of handlers, plugins.
ARG HANDLERS=""

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /source
COPY LICENSE README.md pyproject.toml ./
COPY handlers_example handlers_example
COPY jobqueue_core jobqueue_core
COPY migrations migrations
COPY plugins plugins

# A private index, and its password, come from a secret that stays in no layer: --secret id=pip.conf,src=pip.conf
# Several words, and versions are for who builds to say.
# hadolint ignore=SC2086,DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    pip install --no-compile --prefix=/installed ".[all]" ${HANDLERS}

# Compiled here, because nobody can write later. By what is in the files and not by their times, which may be others in a layer: all would be
# compiled anew whenever a process starts.
RUN python -m compileall -q --invalidation-mode checked-hash /installed

# The image --------------------------------------------------------------------------------------------------------------------------------
FROM python:${PYTHON}

LABEL org.opencontainers.image.title="jobqueue" \
      org.opencontainers.image.description="Background jobs: worker, scheduler and REST API" \
      org.opencontainers.image.licenses="MIT"

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# By number, so that an orchestrator sees that it is not root. The base image brings the standard library uncompiled: each health check would
# compile what it imports. The folders are those where volumes go, which take their owner from here.
RUN groupadd --gid 10001 jobqueue \
    && useradd --uid 10001 --gid jobqueue --home-dir /var/lib/jobqueue --no-create-home --shell /usr/sbin/nologin jobqueue \
    && install --directory --owner jobqueue --group jobqueue --mode 0700 /var/lib/jobqueue /run/jobqueue/database /run/jobqueue/keys \
    && python -m compileall -q --invalidation-mode checked-hash -x '/(idlelib|site-packages|test|tkinter|turtledemo)/' /usr/local/lib/python3.*

COPY --from=build /installed /usr/local

# Where the embedded default keeps its file. Nothing else is written, but in /tmp.
WORKDIR /var/lib/jobqueue
USER 10001:10001

# jobqueue-run is process 1: it passes signals on and buries what dead handlers leave behind. Each role has a health check of its own: see
# compose.yaml.
STOPSIGNAL SIGTERM
ENTRYPOINT ["jobqueue-run"]
