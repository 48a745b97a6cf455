"""Setting channels up, one file per command.

add_channel.py       a bot account on a platform
set_channel.py       other settings for one
add_app.py           secrets that several channels of a platform share
set_app.py           other secrets for one
list_channels.py     what there is, without secrets
list_apps.py         the same of apps
apply_channels.py    channels kept in a file
register_webhook.py  tells the platform where to post
fetch_templates.py   reads the templates of channels from their platform
send_webhook.py      posts a signed sample to the running server
fake_platform.py     a double of the platforms, with people's phones on a page
setup_demo.py        the demo that `make run` and `make demo` show
"""
