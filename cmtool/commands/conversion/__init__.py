"""The part of ``convert`` that packs images."""
