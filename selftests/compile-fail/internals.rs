// SPDX-License-Identifier: GPL-2.0
//
// The protocol and the way to C are the framework's own.

#[cfg(wrong)]
use iommu::{
    attach::{self},                      //~ E0603 module `attach` is private
    attached::Node,                      //~ E0603 module `attached` is private
    binding::Bindings,                   //~ E0603 module `binding` is private
    bindings,                            //~ E0603 module `bindings` is private
    domain::Domain,                      //~ E0603 module `domain` is private
    domain_ops,                          //~ E0603 module `domain_ops` is private
    endpoint::{Device, Endpoint, State}, //~ E0603 module `endpoint` is private
    gather::Gather,                      //~ E0603 module `gather` is private
    leak::report,                        //~ E0603 module `leak` is private
    ops::register,                       //~ E0603 function `register` is private
    pages::TablePage,                    //~ E0603 module `pages` is private
    raw,                                 //~ E0603 module `raw` is private
    registry::Registry,                  //~ E0603 module `registry` is private
    top::Growth,                         //~ E0603 module `top` is private
};
use iommu::{
    driver::Driver,
    queue::Queue, //
};
