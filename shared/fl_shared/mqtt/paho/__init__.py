"""The only room that imports paho.

==================  =============================================================
``link``            one paho client, driven by our event loop
``fast_client``     ways around copies that paho makes; guarded, falls back to stock paho
``publish_packet``  encodes and decodes PUBLISH packets without copies
``options``         paho's properties and options for our settings
``probe``           a bare connection on which the doctor tries a broker
``probe_results``   what a probe has seen
==================  =============================================================
"""
