# Two stages: the first one installs, the second one takes over what was installed, and nothing else.
ARG PYTHON=python:3.13-slim-bookworm

FROM ${PYTHON} AS build
RUN python -m venv /opt/leekfanout
WORKDIR /src
COPY LICENSE README.md constraints.txt pyproject.toml setup.cfg ./
COPY leekfanout leekfanout
# The versions that were tested last, and wheels only: there is no compiler, here or below.
RUN /opt/leekfanout/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary :all: \
        --constraint constraints.txt ".[web,metrics]" \
    && /opt/leekfanout/bin/pip uninstall --yes pip

FROM ${PYTHON}
LABEL org.opencontainers.image.title="leekfanout" \
      org.opencontainers.image.description="Leek's agent, rebuilt: Celery events from RabbitMQ and Redis to a Leek API" \
      org.opencontainers.image.licenses="MIT"

RUN groupadd --gid 10001 leekfanout \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/leekfanout --no-create-home \
        --shell /usr/sbin/nologin leekfanout \
    && install --directory --owner leekfanout --group leekfanout --mode 0700 \
        /var/lib/leekfanout /opt/app/conf
COPY --from=build /opt/leekfanout /opt/leekfanout

ENV PATH=/opt/leekfanout/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    LEEKFANOUT_STATE_DIR=/var/lib/leekfanout \
    LEEK_ENABLE_AGENT=true \
    LEEK_ENABLE_API=false \
    LEEK_ENABLE_WEB=false

USER 10001:10001
WORKDIR /var/lib/leekfanout
# What can't be lost: undelivered events of Redis and dead letters; and the subscriptions, in
# /opt/app/conf/subscriptions.json unless LEEK_AGENT_SUBSCRIPTIONS holds them.
VOLUME ["/var/lib/leekfanout", "/opt/app/conf"]

# SIGTERM drains within 8 seconds, which is less than the 10 that Docker waits.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s \
    CMD ["leekfanout", "health"]

ENTRYPOINT ["leekfanout"]
CMD ["run"]
